package shim

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// stateBurst and then statesPerSecond states of one kind are written;
	// of those that a container brings about faster only the newest is.
	stateBurst      = 20
	statesPerSecond = 2
	// flushTimeout bounds how long a state is waited for that is being
	// written, on the host.
	flushTimeout = time.Second
)

// latest writes the newest of a sequence of states, in their order, and not
// more often than a container may make the host write.
type latest[T any] struct {
	write func(T)
	limit *rate.Limiter

	mu      sync.Mutex
	next    *T
	written chan struct{} // closed when next is; nil while there is none
	closed  bool
	final   chan struct{} // closed with it
}

func newLatest[T any](write func(T)) *latest[T] {
	return &latest[T]{write: write, limit: rate.NewLimiter(statesPerSecond, stateBurst), final: make(chan struct{})}
}

// put takes a state, unless the last one has come. It does not wait for its
// being written.
func (l *latest[T]) put(state T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.next = &state
	if l.written == nil {
		l.written = make(chan struct{})
		go l.run(l.written)
	}
}

func (l *latest[T]) run(written chan struct{}) {
	defer close(written)
	for {
		if wait := l.limit.Reserve().Delay(); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.final:
			}
		}
		l.write(l.take())
		l.mu.Lock()
		done := l.next == nil
		if done {
			l.written = nil
		}
		l.mu.Unlock()
		if done {
			return
		}
	}
}

// take takes the state that is to be written: there is one.
func (l *latest[T]) take() T {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := *l.next
	l.next = nil
	return state
}

// flush waits until what was put has been written, unless it comes too fast
// for that.
func (l *latest[T]) flush() {
	l.mu.Lock()
	written := l.written
	l.mu.Unlock()
	if written == nil || l.limit.Tokens() < 0 {
		return
	}
	await(written)
}

// close writes the last state. What comes later may be meant for a place that
// is another container's by then.
func (l *latest[T]) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.final)
	}
	written := l.written
	l.mu.Unlock()
	if written != nil {
		await(written)
	}
}

// await waits until done is closed, for flushTimeout at the most.
func await(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(flushTimeout):
	}
}

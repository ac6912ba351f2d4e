package launcher

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

// latest has the newest of a sequence of states written, and not more often than
// a container may make the host write.
type latest struct {
	write func() // writes the state as it is then
	limit *rate.Limiter

	mu      sync.Mutex
	dirty   bool
	written chan struct{} // closed when the newest is; nil while nothing is being written
	closed  bool
	final   chan struct{} // closed with it
}

func newLatest(write func()) *latest {
	return &latest{write: write, limit: rate.NewLimiter(statesPerSecond, stateBurst), final: make(chan struct{})}
}

// changed says that there is a newer state, unless the last one has come. It does
// not wait for its being written.
func (l *latest) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.dirty = true
	if l.written == nil {
		l.written = make(chan struct{})
		go l.run(l.written)
	}
}

func (l *latest) run(written chan struct{}) {
	defer close(written)
	for l.next() {
		if wait := l.limit.Reserve().Delay(); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.final:
			}
		}
		l.take()
		l.write()
	}
}

// next reports whether something is to be written.
func (l *latest) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dirty {
		l.written = nil
	}
	return l.dirty
}

// take notes that what has changed by now is about to be written.
func (l *latest) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = false
}

// flush waits until what has changed has been written, unless that comes too fast.
func (l *latest) flush() {
	if written := l.writing(); written != nil && l.limit.Tokens() >= 0 {
		await(written)
	}
}

func (l *latest) writing() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// close has the last state written. What comes later may be meant for a place that
// is another container's by then.
func (l *latest) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.final)
	}
	l.mu.Unlock()
	if written := l.writing(); written != nil {
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

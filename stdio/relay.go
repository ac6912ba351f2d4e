package stdio

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ExecDrain is how long the removal of an exec waits for those who still hold
// its output. It is less than the 10 s that containerd allows for the whole.
const ExecDrain = 8 * time.Second

// relay copies from a pipe, which a process writes to, to where containerd
// wants its output.
type relay struct {
	from *os.File
	to   io.WriteCloser
	done chan struct{} // closed when all has been copied
	also io.Closer
	once sync.Once
}

// relay returns the end of a pipe for the process, whose other end is copied to
// a file. also is closed with it.
func (o *Streams) relay(to io.WriteCloser, also io.Closer) (*os.File, error) {
	read, write, err := Pipe()
	if err != nil {
		return nil, errors.Join(err, to.Close(), also.Close())
	}
	from, err := Pollable(read)
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close(), to.Close(), also.Close())
	}
	r := &relay{from: from, to: to, also: also, done: make(chan struct{})}
	o.relays = append(o.relays, r)
	go r.run()
	return write, nil
}

// relayToFifo is relay to a fifo that was opened without blocking, of which
// keeper is a reader of ours.
func (o *Streams) relayToFifo(fifo, keeper *os.File) (*os.File, error) {
	to, err := Pollable(fifo)
	if err != nil {
		return nil, errors.Join(err, fifo.Close(), keeper.Close())
	}
	return o.relay(to, keeper)
}

// relayBuffers are shared: most relays have nothing to copy at most times.
var relayBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func (r *relay) run() {
	defer close(r.done)
	defer r.close()
	from, err := r.from.SyscallConn()
	if err != nil {
		return
	}
	for {
		var buf *[]byte
		var n int
		var readErr error
		err := from.Read(func(fd uintptr) bool {
			buf = relayBuffers.Get().(*[]byte)
			n, readErr = unix.Read(int(fd), *buf)
			if readErr == unix.EAGAIN {
				relayBuffers.Put(buf) // not held while there is nothing
				return false
			}
			return true
		})
		if err != nil {
			return // closed
		}
		if n > 0 {
			_, err = r.to.Write((*buf)[:n])
		}
		relayBuffers.Put(buf)
		if err != nil || readErr != unix.EINTR && n <= 0 {
			return
		}
	}
}

// close ends the copying, and tells the reader that it has all.
func (r *relay) close() {
	r.once.Do(func() {
		r.from.Close()
		r.to.Close()
		r.also.Close()
	})
}

// Await waits until all output has been copied.
func (o *Streams) Await(limit time.Duration) {
	if len(o.relays) == 0 {
		return
	}
	deadline := time.After(limit)
	for _, r := range o.relays {
		select {
		case <-r.done:
		case <-deadline:
			return
		}
	}
}

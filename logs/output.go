package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"containerd-shim-rich/stdio"
)

const (
	// maxLine bounds a line in bytes, so that one write of it and what
	// precedes it is never mixed with another's (pipe(7), PIPE_BUF).
	maxLine = 3 << 10
	// linesPerSecond and linesBurst bound what is logged, in bytes. The
	// rest is lost, and its amount told.
	linesPerSecond = 64 << 10
	linesBurst     = 1 << 20
	// readPerSecond bounds, in bytes, what is read at all: a component that
	// writes more waits.
	readPerSecond = 8 << 20
	readBuffer    = 64 << 10
	// maxLastWords bounds what is read at the end of a component, in bytes.
	maxLastWords = 256 << 10
	// tailLines and tailLine bound the last words that are kept.
	tailLines = 10
	tailLine  = 256
	// outputGrace bounds how long the end of the output is waited for when
	// the container is gone.
	outputGrace = time.Second
)

// Writer takes the lines of a component, without their ends. partial says
// that the line goes on. It reports whether the line has got through, and
// must not block for long.
type Writer interface {
	WriteLine(stream string, line []byte, partial bool) bool
	io.Closer
}

// Output reads what a component writes, so that no flood of it and no
// reader that is stuck reaches further than the component.
type Output struct {
	Ends    [3]*os.File // stdin, stdout and stderr of the component
	streams [2]*outputStream
	to      Writer
	lines   *rate.Limiter
	reads   *rate.Limiter
	lost    atomic.Int64 // lines that did not get through and are not told of
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu   sync.Mutex // held while something is read and passed on; guards the following
	tail []string
}

// outputStream is stdout or stderr.
type outputStream struct {
	name string
	file *os.File
	raw  syscall.RawConn

	buf  []byte
	line []byte // read and not ended yet
}

// NewOutput makes the streams of a component that runs as uid and gid of the
// host, and passes on what it writes until Close.
func NewOutput(to Writer, uid, gid int) (_ *Output, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	o := &Output{
		to:    to,
		lines: rate.NewLimiter(linesPerSecond, linesBurst),
		reads: rate.NewLimiter(readPerSecond, readBuffer),
		stop:  cancel,
	}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	if o.Ends[0], err = os.Open(os.DevNull); err != nil {
		return nil, err
	}
	for i, name := range []string{"stdout", "stderr"} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		o.Ends[i+1] = os.NewFile(uintptr(fds[1]), name)
		if err := errors.Join(unix.SetNonblock(fds[0], true), unix.Fchown(fds[1], uid, gid)); err != nil {
			unix.Close(fds[0])
			return nil, err
		}
		s := &outputStream{name: name, file: os.NewFile(uintptr(fds[0]), name), buf: make([]byte, readBuffer)}
		o.streams[i] = s
		if s.raw, err = s.file.SyscallConn(); err != nil {
			return nil, err
		}
		o.done.Add(1)
		go o.pump(ctx, s)
	}
	return o, nil
}

// pump passes a stream on until it ends.
func (o *Output) pump(ctx context.Context, s *outputStream) {
	defer o.done.Done()
	for {
		var n int
		var readErr error
		err := s.raw.Read(func(fd uintptr) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			n, readErr = o.read(s, fd)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		if err != nil || readErr != nil || n == 0 {
			return
		}
		if o.reads.WaitN(ctx, n) != nil {
			return
		}
	}
}

// read reads once. The caller holds mu.
func (o *Output) read(s *outputStream, fd uintptr) (int, error) {
	for {
		n, err := unix.Read(int(fd), s.buf)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			o.take(s, s.buf[:n])
		}
		return n, err
	}
}

func (o *Output) take(s *outputStream, p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		room := maxLine - len(s.line)
		switch {
		case len(part) > room:
			s.line = append(s.line, part[:room]...)
			p = p[room:]
			o.emit(s.name, s.line, true)
		case end >= 0:
			s.line = append(s.line, part...)
			p = p[end+1:]
			o.emit(s.name, s.line, false)
		default:
			s.line = append(s.line, part...)
			return
		}
		s.line = s.line[:0]
	}
}

func (o *Output) emit(stream string, line []byte, partial bool) {
	if stream == "stderr" {
		if len(o.tail) == tailLines {
			o.tail = append(o.tail[:0], o.tail[1:]...)
		}
		o.tail = append(o.tail, string(line[:min(len(line), tailLine)]))
	}
	if !o.lines.AllowN(time.Now(), len(line)+1) {
		o.lost.Add(1)
		return
	}
	if lost := o.lost.Load(); lost > 0 {
		if !o.to.WriteLine("stderr", fmt.Appendf(nil, "[rich: %d lines are lost]", lost), false) {
			o.lost.Add(1)
			return
		}
		o.lost.Store(0)
	}
	if !o.to.WriteLine(stream, line, partial) {
		o.lost.Add(1)
	}
}

// LastWords is the end of what the component has written to its stderr.
func (o *Output) LastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	// A process's output is in the pipe before its end is known.
	for _, s := range o.streams {
		stdio.Drain(s.raw, s.buf, maxLastWords, func(p []byte) { o.take(s, p) })
	}
	words := strings.Join(o.tail, "\n")
	o.tail = nil
	return words
}

// Close ends the output. What is left of it is passed on, if nobody keeps a
// stream open.
func (o *Output) Close() {
	for _, f := range o.Ends {
		if f != nil {
			f.Close()
		}
	}
	ended := make(chan struct{})
	go func() {
		o.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(outputGrace):
	}
	o.stop()
	for _, s := range o.streams {
		if s != nil {
			s.file.Close()
		}
	}
	<-ended
	o.mu.Lock()
	defer o.mu.Unlock()
	if lost := o.lost.Load(); lost > 0 {
		o.to.WriteLine("stderr", fmt.Appendf(nil, "[rich: %d lines are lost]", lost), false)
	}
	_ = o.to.Close()
}

package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"containerd-shim-rich/hostfs"
)

const (
	// logRoot is where the logs of components are on the host, as
	// NAMESPACE/CONTAINER/NAME.log.
	logRoot = "/var/log"
	logDir  = "rich"

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

// lineWriter takes the lines of a component, without their ends. partial says
// that the line goes on. It reports whether the line has got through, and
// must not block for long.
type lineWriter interface {
	writeLine(stream string, line []byte, partial bool) bool
	io.Closer
}

// componentOutput reads what a component writes, so that no flood of it and no
// reader that is stuck reaches further than the component.
type componentOutput struct {
	theirs  [3]*os.File // stdin, stdout and stderr of the component
	streams [2]*outputStream
	to      lineWriter
	lines   *rate.Limiter
	reads   *rate.Limiter
	lost    atomic.Int64 // lines that did not get through and are not told of
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu   sync.Mutex // guards the following, and writes
	tail []string
}

// outputStream is stdout or stderr.
type outputStream struct {
	name string
	file *os.File
	raw  syscall.RawConn

	mu   sync.Mutex // held while something is read and passed on
	buf  []byte
	line []byte // read and not ended yet
}

func newComponentOutput(to lineWriter, uid, gid int) (_ *componentOutput, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	o := &componentOutput{
		to:    to,
		lines: rate.NewLimiter(linesPerSecond, linesBurst),
		reads: rate.NewLimiter(readPerSecond, readBuffer),
		stop:  cancel,
	}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if o.theirs[0], err = os.Open(os.DevNull); err != nil {
		return nil, err
	}
	for i, name := range []string{"stdout", "stderr"} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		o.theirs[i+1] = os.NewFile(uintptr(fds[1]), name)
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
func (o *componentOutput) pump(ctx context.Context, s *outputStream) {
	defer o.done.Done()
	for {
		var n int
		var readErr error
		err := s.raw.Read(func(fd uintptr) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
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

// read reads once. Its caller holds the stream.
func (o *componentOutput) read(s *outputStream, fd uintptr) (int, error) {
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

func (o *componentOutput) take(s *outputStream, p []byte) {
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

func (o *componentOutput) emit(stream string, line []byte, partial bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
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
		if !o.to.writeLine("stderr", fmt.Appendf(nil, "[rich: %d lines are lost]", lost), false) {
			o.lost.Add(1)
			return
		}
		o.lost.Store(0)
	}
	if !o.to.writeLine(stream, line, partial) {
		o.lost.Add(1)
	}
}

// lastWords is the end of what the component has written to its stderr.
func (o *componentOutput) lastWords() string {
	// A process's output is in the pipe before its end is known.
	for _, s := range o.streams {
		s.mu.Lock()
		_ = s.raw.Control(func(fd uintptr) {
			for total := 0; total < maxLastWords; {
				n, err := o.read(s, fd)
				if err != nil || n == 0 {
					break
				}
				total += n
			}
		})
		s.mu.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	words := strings.Join(o.tail, "\n")
	o.tail = nil
	return words
}

// close ends the output. What is left of it is passed on, if nobody keeps a
// stream open.
func (o *componentOutput) close() {
	for _, f := range o.theirs {
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
		o.to.writeLine("stderr", fmt.Appendf(nil, "[rich: %d lines are lost]", lost), false)
	}
	_ = o.to.Close()
}

// fileLog writes to a file on the host, in the format of the CRI: time,
// stream, F or P for a full or a partial line, text.
type fileLog struct {
	dir   *hostfs.Dir
	name  string
	file  *os.File
	size  int64
	limit int64
}

// logPath is the directory of a container's logs, below logRoot.
func logPath(namespace, id string) string {
	return path.Join(logDir, strings.ReplaceAll(namespace, "/", "_"), id)
}

// openFileLog begins a log in a directory below logRoot.
func openFileLog(dir, name string, limit int64) (*fileLog, error) {
	root, err := hostfs.Open(logRoot)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	l := &fileLog{name: name + ".log", limit: limit}
	// Another shim may remove a directory above that has become empty.
	const attempts = 10
	for range attempts {
		if err = root.MkdirAll(dir, 0o700); err == nil {
			l.dir, err = root.Sub(dir)
		}
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.dir.Close())
	}
	return l, nil
}

// open makes the file anew. Whatever else has its name goes away and is not
// followed, should it be a link.
func (l *fileLog) open() (err error) {
	if err := l.dir.Remove(l.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l.size = 0
	l.file, err = l.dir.Create(l.name, 0o600)
	return err
}

func (l *fileLog) writeLine(stream string, line []byte, partial bool) bool {
	tag := "F"
	if partial {
		tag = "P"
	}
	text := fmt.Appendf(nil, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, line)
	if l.size+int64(len(text)) > l.limit && l.rotate() != nil {
		return false
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	return err == nil
}

func (l *fileLog) rotate() error {
	if err := l.dir.Rename(l.name, l.name+".1"); err != nil {
		return err
	}
	l.file.Close()
	return l.open()
}

// Close ends the log.
func (l *fileLog) Close() error { return errors.Join(l.file.Close(), l.dir.Close()) }

// removeLogs removes a directory below logRoot, and those above it that were
// made for it.
func removeLogs(dir string) error {
	if dir == "" {
		return nil
	}
	root, err := os.OpenRoot(logRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the logs of components: %w", err)
	}
	for dir = filepath.Dir(dir); dir != "."; dir = filepath.Dir(dir) {
		if root.Remove(dir) != nil {
			break // others have logs there
		}
	}
	return nil
}

// containerLog writes to the container's streams, each line after the name of
// its component.
type containerLog struct {
	name string
	end  string
	to   map[string]int // descriptors by stream
}

// newContainerLog takes descriptors of the container's stdout and stderr that
// do not wait for a reader, -1 for a stream that the engine does not want, and
// how a line ends there.
func newContainerLog(name string, fds [2]int, end string) *containerLog {
	l := &containerLog{name: name, end: end, to: map[string]int{}}
	for i, stream := range []string{"stdout", "stderr"} {
		if fds[i] >= 0 {
			l.to[stream] = fds[i]
		}
	}
	return l
}

func (l *containerLog) writeLine(stream string, line []byte, _ bool) bool {
	fd, ok := l.to[stream]
	if !ok {
		return true // the engine wants none
	}
	text := fmt.Appendf(nil, "%s: %s%s", l.name, line, l.end)
	n, err := unix.Write(fd, text)
	return err == nil && n == len(text)
}

// Close closes the streams that were opened anew.
func (l *containerLog) Close() error {
	var errs []error
	for _, fd := range l.to {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

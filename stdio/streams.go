package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// Names are what a request names for a process's standard streams, as
// URIs (containerd's docs/runtime-v2.md, IO). An empty one is not connected.
type Names struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Streams is a process's standard streams. Where containerd names a fifo, pid 1
// or the command gets that very file: nothing is copied, so nothing is lost when
// the shim dies, and what it has written is with the reader before its exit is
// known. An exec gets a pipe, which can be closed while something that it has
// left behind still holds it. So does whoever writes to a file of the host:
// with a descriptor of that it could change the file's owner or mode, or cut it.
type Streams struct {
	files  [3]*os.File // the process's ends; nil is /dev/null
	keep   []io.Closer // closed when the process has ended
	relays []*relay
	piped  bool      // fifos are not given to the process itself
	logger *logger   // the process that binary:// names
	tty    *terminal // in place of files if there is a terminal

	stdin atomic.Pointer[os.File] // a writer of ours that keeps stdin open until CloseIO
}

// openLimit bounds the wait for the other ends of streams, for clients that set
// no deadline.
var openLimit = 30 * time.Second

// Open opens the streams. It waits for the readers of fifos to appear,
// until ctx ends.
func Open(ctx context.Context, s Names, info Owner, piped bool) (_ *Streams, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, fmt.Errorf("not within %v: %w", openLimit, context.DeadlineExceeded))
	defer cancel()
	out := &Streams{piped: piped && !s.Terminal}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	if s.Stdin != "" {
		if err := out.openStdin(s.Stdin); err != nil {
			return nil, fmt.Errorf("stdin: %w", err)
		}
	}
	if s.Stdout != "" {
		if err := out.openOutput(ctx, 1, s.Stdout, info); err != nil {
			return nil, fmt.Errorf("stdout: %w", err)
		}
	}
	switch {
	case s.Stderr == "" || s.Terminal || out.files[2] != nil:
	case s.Stderr == s.Stdout:
		out.files[2] = out.files[1]
	default:
		if err := out.openOutput(ctx, 2, s.Stderr, info); err != nil {
			return nil, fmt.Errorf("stderr: %w", err)
		}
	}
	if s.Terminal {
		if out.tty, err = newTerminal(out.files[0], out.files[1]); err != nil {
			return nil, err
		}
		if out.files[2] != nil {
			out.files[2].Close() // a logger's, which waits for its end
		}
		out.files = [3]*os.File{}
	}
	return out, nil
}

func (o *Streams) openStdin(path string) error {
	// Opening the reading end without blocking never waits for a writer.
	in, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	o.files[0] = in
	if !isFifo(in) {
		return nil
	}
	// A process that reads before its client has opened the other end, or
	// between two clients, must not see the end of its input.
	writer, err := openFile(path, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	o.stdin.Store(writer)
	return unix.SetNonblock(int(in.Fd()), false)
}

func (o *Streams) openOutput(ctx context.Context, n int, uri string, info Owner) error {
	u, err := url.Parse(uri)
	if err != nil {
		return fmt.Errorf("value %q: %w", uri, errors.Join(err, errdefs.ErrInvalidArgument))
	}
	switch u.Scheme {
	case "", "fifo":
		path := u.Path
		if u.Scheme == "" {
			path = uri
		}
		o.files[n], err = o.openWriter(ctx, path)
		return err
	case "file":
		// The engine's caller, root on the host, names the file and what links
		// lead to it.
		if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil { //nolint:forbidigo // see above
			return err
		}
		f, err := os.OpenFile(u.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:forbidigo // see above
		if err != nil {
			return err
		}
		o.files[n], err = o.relay(f, f)
		return err
	case "binary", "binary-v2":
		// One process takes both streams.
		if o.logger, err = startLogger(ctx, u, info); err != nil {
			return err
		}
		o.files[1], o.files[2] = o.logger.stdout, o.logger.stderr
		return nil
	}
	return fmt.Errorf("value %q: scheme %q: want fifo, file, binary or binary-v2: %w", uri, u.Scheme, errdefs.ErrInvalidArgument)
}

// fifoPoll is how often the reader of a fifo is looked for.
const fifoPoll = 2 * time.Millisecond

// openWriter opens a fifo once somebody reads it, or another file at once.
func (o *Streams) openWriter(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := openFile(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_APPEND)
		if errors.Is(err, unix.ENXIO) {
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("open %s: nobody reads it: %w", path, context.Cause(ctx))
			case <-time.After(fifoPoll):
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if isFifo(f) {
			// A reader of ours: when containerd's goes away for a while, the
			// process must wait rather than be ended by SIGPIPE.
			keeper, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			if o.piped {
				return o.relayToFifo(f, keeper)
			}
			o.keep = append(o.keep, keeper)
			widen(f)
		}
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

// fifoSize is how much a fifo holds of a process's output, in bytes. With the
// kernel's 64 KiB (pipe(7)) a process that writes much and its reader wake
// each other for every few pages; what is above 256 KiB gains little more, and
// counts against the memory limit of a container whose reader has stopped.
const fifoSize = 256 << 10

// widen lets a fifo hold more. One that cannot is only slower.
func widen(f *os.File) {
	if size, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0); err == nil && size < fifoSize {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, fifoSize)
	}
}

// openFile opens without handing the file to Go's poller: it is meant for
// another process.
func openFile(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func isFifo(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().Type() == os.ModeNamedPipe
}

// Ends are the process's ends: stdin, stdout and stderr. nil is /dev/null. They
// are closed by release.
func (o *Streams) Ends() [3]*os.File { return o.files }

// Chown gives the streams to the root of a user namespace, which otherwise
// could not give them on to the process's user.
func (o *Streams) Chown(uid, gid int) error {
	for _, f := range o.files {
		if f == nil {
			continue
		}
		if err := f.Chown(uid, gid); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// Release closes the process's ends once it has them.
func (o *Streams) Release() {
	for i, f := range o.files {
		if f != nil && (i != 2 || f != o.files[1]) {
			f.Close()
		}
	}
	o.files = [3]*os.File{}
}

// CloseStdin lets the process see the end of its input.
func (o *Streams) CloseStdin() {
	if writer := o.stdin.Swap(nil); writer != nil {
		writer.Close()
	}
	if o.tty != nil {
		o.tty.closeStdin()
	}
}

// Finish ends the streams after the process: what a terminal still holds is
// delivered, then containerd's readers see the end. A reader that takes nothing
// is waited for no longer than stuck.
func (o *Streams) Finish(stuck time.Duration) {
	if o.tty != nil {
		o.tty.drain(stuck)
	}
	o.Release()
	o.Await(stuck)
	o.Close()
}

// Leave ends the streams after an exec. What it has left behind may go on to
// write, until the exec is deleted.
func (o *Streams) Leave(stuck time.Duration) {
	if len(o.relays) == 0 {
		o.Finish(stuck)
		return
	}
	o.Release()
	o.CloseStdin()
}

// Close ends the streams at once.
func (o *Streams) Close() {
	o.Release()
	o.CloseStdin()
	if o.tty != nil {
		o.tty.close()
	}
	for _, r := range o.relays {
		r.close()
	}
	for _, c := range o.keep {
		c.Close()
	}
	o.keep = nil
	if o.logger != nil {
		o.logger.stop()
		o.logger = nil
	}
}

// HandOver returns the process's three ends for a launcher, and a function
// that closes those of them that were opened for it. With a terminal there
// are none.
func (o *Streams) HandOver() ([]*os.File, func(), error) {
	if o.tty != nil {
		return nil, func() {}, nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	files := make([]*os.File, len(o.files))
	for i, f := range o.files {
		if f == nil {
			f = null
		}
		files[i] = f
	}
	return files, func() { null.Close() }, nil
}

package stdio

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

const (
	// terminalBuffer is the size in bytes of what is copied at once.
	terminalBuffer = 4 << 10
	// drainQuiet is how long a terminal may be silent, after its process
	// has ended, before its output counts as complete: a daemon that keeps
	// it open must not hold up the exit.
	drainQuiet = time.Second
	// drainBusy is how long it is copied while there is more and more of it:
	// what a process has written itself is then long gone.
	drainBusy = 3 * drainQuiet
	// DrainStuck is how long the reader of the output may take nothing.
	DrainStuck = 10 * time.Second
	// KilledStuck is the same after SIGKILL, whose sender wants the end.
	KilledStuck = 2 * time.Second
)

// terminal copies between a pty and the streams that containerd names.
type terminal struct {
	stdout *os.File // may be nil

	mu     sync.Mutex
	stdin  *os.File // may be nil
	master *os.File
	rows   uint16
	cols   uint16
	output chan struct{} // closed when there is no more output to copy
	input  chan struct{} // closed when no input is copied any more

	copied  atomic.Int64 // bytes of output
	writing atomic.Bool  // output waits for its reader
}

func newTerminal(stdin, stdout *os.File) (*terminal, error) {
	t := &terminal{}
	var err error
	if stdin != nil {
		if t.stdin, err = Pollable(stdin); err != nil {
			return nil, err
		}
	}
	if stdout != nil {
		if t.stdout, err = Pollable(stdout); err != nil {
			return nil, errors.Join(err, t.stdin.Close())
		}
	}
	return t, nil
}

// start takes the pty's master and begins to copy. If the command has had one
// before, what that still holds comes first.
//
// The master may have come from the container, where somebody may have kept it
// and make it wait where it should not: whether it blocks is a property of the
// open file (open(2)), not of our descriptor.
func (t *terminal) start(master *os.File) error {
	pty, err := Pollable(master)
	if err != nil {
		return err
	}
	t.drain(DrainStuck)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		go launch.Drop(t.master)
		t.stopInput()
	}
	t.master = pty
	if t.rows != 0 || t.cols != 0 {
		if err := setSize(pty, t.rows, t.cols); err != nil {
			return err
		}
	}
	if t.stdin != nil {
		t.input = make(chan struct{})
		go copyInput(pty, t.stdin, t.input)
	}
	t.output = make(chan struct{})
	go t.copyOutput(pty, t.output)
	return nil
}

// stopInput ends the copying to a terminal that is closed, so that it does
// not take what is meant for the next. The caller holds mu.
func (t *terminal) stopInput() {
	if t.input == nil || t.stdin == nil {
		return
	}
	// Fails if the stream is none that can be waited for; then nothing
	// waits.
	_ = t.stdin.SetReadDeadline(time.Now())
	select {
	case <-t.input:
	case <-time.After(drainQuiet):
	}
	_ = t.stdin.SetReadDeadline(time.Time{})
}

func copyInput(pty, stdin *os.File, done chan<- struct{}) {
	defer close(done)
	buf := make([]byte, terminalBuffer)
	for {
		n, err := stdin.Read(buf)
		if n > 0 {
			if _, werr := pty.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// copyOutput ends with EIO when no process has the pty open any more.
func (t *terminal) copyOutput(pty *os.File, done chan<- struct{}) {
	defer close(done)
	buf := make([]byte, terminalBuffer)
	for {
		n, err := pty.Read(buf)
		if n > 0 && t.stdout != nil {
			t.writing.Store(true)
			_, werr := t.stdout.Write(buf[:n])
			t.writing.Store(false)
			if werr != nil {
				return
			}
			t.copied.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}

// ptmx is the device that is opened for a new terminal (pts(4)), whose
// descriptor then is the master of it.
var ptmx = unix.Mkdev(5, 2)

// isTerminalMaster reports whether a descriptor that may be anything is the
// master of a terminal. It asks nobody: the file system that an ioctl or fstat
// would be passed on to may belong to the container, and not answer.
func isTerminalMaster(fd int) bool {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Mkdev(st.Rdev_major, st.Rdev_minor) != ptmx {
		return false
	}
	_, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
	return err == nil
}

// HasTerminal reports whether the process has a terminal in place of files.
func (o *Streams) HasTerminal() bool { return o.tty != nil }

// StartTerminal takes the master of the terminal that the process has made.
func (o *Streams) StartTerminal(master *os.File) error { return o.tty.start(master) }

// TakeTerminal is startTerminal for what a container has sent: it may be
// anything.
func (o *Streams) TakeTerminal(f *os.File) error {
	if !isTerminalMaster(int(f.Fd())) || o.tty == nil {
		launch.Drop(f)
		return errors.New("terminal: the descriptor is not the master of one that was asked for")
	}
	return o.tty.start(f)
}

// Resize sets the size of the terminal in characters; before it exists the size
// is kept. Without one it does nothing.
func (o *Streams) Resize(rows, cols uint16) error {
	if o.tty == nil {
		return nil
	}
	return o.tty.resize(rows, cols)
}

// Size is what the terminal is to have, 0 and 0 if nobody has said.
func (o *Streams) Size() (rows, cols uint16) {
	o.tty.mu.Lock()
	defer o.tty.mu.Unlock()
	return o.tty.rows, o.tty.cols
}

// resize sets the size in characters; before the pty exists it is kept.
func (t *terminal) resize(rows, cols uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows, t.cols = rows, cols
	if t.master == nil {
		return nil
	}
	return setSize(t.master, rows, cols)
}

func setSize(pty *os.File, rows, cols uint16) error {
	conn, err := pty.SyscallConn()
	if err != nil {
		return err
	}
	var ioctl error
	err = conn.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, ioctl)
}

// drain waits until the output of an ended process has been copied. What it has
// left behind may go on to write, so a reader that takes all of it is not waited
// for until there is no more, and one that takes nothing no longer than stuck.
func (t *terminal) drain(stuck time.Duration) {
	t.mu.Lock()
	output := t.output
	t.mu.Unlock()
	if output == nil {
		return
	}
	copied := t.copied.Load()
	for waited := drainQuiet; ; waited += drainQuiet {
		select {
		case <-output:
			return
		case <-time.After(drainQuiet):
		}
		now := t.copied.Load()
		quiet := now == copied || waited >= drainBusy
		if quiet && !t.writing.Load() || waited >= stuck {
			return
		}
		copied = now
	}
}

func (t *terminal) closeStdin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stdin != nil {
		t.stdin.Close()
		t.stdin = nil
	}
}

func (t *terminal) close() {
	t.closeStdin()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		go launch.Drop(t.master)
		t.master = nil
	}
	if t.stdout != nil {
		t.stdout.Close()
	}
}

// Pollable reopens a file so that Go's poller serves it: reads of it can
// then be given a deadline and be ended by Close.
func Pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	name := f.Name()
	if err := errors.Join(unix.SetNonblock(fd, true), f.Close()); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ConsoleSocket is a pair of sockets over which a new process sends the
// master of the terminal that it made in its container.
type ConsoleSocket struct {
	ours, Theirs *os.File
}

// NewConsoleSocket makes a pair of which Theirs is for the new process.
func NewConsoleSocket() (*ConsoleSocket, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	return &ConsoleSocket{
		ours:   os.NewFile(uintptr(fds[0]), "console"),
		Theirs: os.NewFile(uintptr(fds[1]), "console"),
	}, nil
}

// Receive returns the master after the process has started: it was sent
// before that, so nothing waits.
func (c *ConsoleSocket) Receive() (*os.File, error) {
	c.Theirs.Close()
	name, oob := make([]byte, unix.PathMax), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(c.ours.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return os.NewFile(uintptr(fds[0]), "pty"), nil
		}
	}
	return nil, errors.New("the process sent no terminal")
}

// Close closes both.
func (c *ConsoleSocket) Close() {
	c.ours.Close()
	c.Theirs.Close()
}

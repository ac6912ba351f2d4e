package child

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Proc is a process by its directory in proc(5), opened while the process
// was known to be the right one: all that is read by it and sent to it is that
// process's, whoever has its number by now.
type Proc struct{ dir *os.File }

// OpenProc opens whoever has a number now.
func OpenProc(pid int) (Proc, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d", pid))
	return Proc{dir}, err
}

// ProcOf is for a process that is started and has not been waited for.
func ProcOf(p *libcontainer.Process) (Proc, error) {
	pid, err := p.Pid()
	if err != nil {
		return Proc{}, err
	}
	return OpenProc(pid)
}

// Close lets the process go.
func (p Proc) Close() error { return p.dir.Close() }

// Signal sends a signal. The error is ESRCH when the process has been waited
// for. That a directory will do is in the kernel since pidfd_send_signal(2) is
// (Linux 5.1).
func (p Proc) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(int(p.dir.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("signal a process by a descriptor: %w; it needs Linux 5.1", err)
	}
	return err
}

// WaitedFor reports whether the process has been waited for: until then nobody
// else has its number.
func (p Proc) WaitedFor() bool { return errors.Is(p.Signal(0), unix.ESRCH) }

// Open opens a file below the directory.
func (p Proc) Open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.dir.Name() + "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (p Proc) Read(name string) ([]byte, error) {
	f, err := p.Open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// HasFiles reports whether the process has namespaces and open files: one that
// ends loses them before it is a zombie.
func (p Proc) HasFiles() bool {
	var target [64]byte
	_, err := unix.Readlinkat(int(p.dir.Fd()), "ns/mnt", target[:])
	return err == nil
}

// Flags of proc_pid_stat(5), from the kernel's include/linux/sched.h.
const (
	flagExiting    = 0x4  // PF_EXITING: it is on its way out
	FlagForkNoExec = 0x40 // PF_FORKNOEXEC: it still is what its parent is
)

// Stat is some of what proc_pid_stat(5) tells.
type Stat struct {
	name   string
	state  string
	Parent int
	Flags  uint64
	began  uint64 // in clock ticks after the boot
}

// Stat describes the process; ok is false if it is gone.
func (p Proc) Stat() (s Stat, ok bool) {
	data, err := p.Read("stat")
	if err != nil {
		return s, false
	}
	// The name, in parentheses, may hold anything.
	begin, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if begin < 0 || end < begin {
		return s, false
	}
	// What follows it, by the number of the field.
	const state, ppid, flags, starttime = 3, 4, 9, 22
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) <= starttime-state {
		return s, false
	}
	s.name, s.state = string(data[begin+1:end]), fields[0]
	var errs [3]error
	s.Parent, errs[0] = strconv.Atoi(fields[ppid-state])
	s.Flags, errs[1] = strconv.ParseUint(fields[flags-state], 10, 64)
	s.began, errs[2] = strconv.ParseUint(fields[starttime-state], 10, 64)
	return s, errors.Join(errs[:]...) == nil
}

// statOf describes whoever has a number now.
func statOf(pid int) (Stat, bool) {
	p, err := OpenProc(pid)
	if err != nil {
		return Stat{}, false
	}
	defer p.Close()
	return p.Stat()
}

// Exiting reports whether the process is on its way out or gone.
func (p Proc) Exiting() bool {
	s, ok := p.Stat()
	return !ok || s.Flags&flagExiting != 0
}

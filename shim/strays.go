package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

const (
	// strayWait bounds how long a process of a failed start may take to end.
	strayWait = 10 * time.Second
	// strayPoll is how long a dead process has to stay unclaimed to be one
	// that nobody waits for.
	strayPoll = 50 * time.Millisecond
	// stageName begins the names of libcontainer's processes before they
	// become what they were started for.
	stageName = "runc:["
)

// children starts the processes of all containers, and waits for them.
//
// A start that fails in the middle leaves children behind that libcontainer,
// made for a program that then ends, does not wait for. In the pid namespace
// of a container that is not only untidy: its pid 1 cannot end before the
// last of them has been waited for (pid_namespaces(7)).
type children struct {
	failed chan struct{} // has an item after a failed start

	mu    sync.Mutex
	owned map[int]*libcontainer.Process
}

func newChildren() *children {
	c := &children{failed: make(chan struct{}, 1), owned: map[int]*libcontainer.Process{}}
	go func() {
		for range c.failed {
			c.reap()
		}
	}()
	return c
}

// start starts a process that will be waited for by wait.
func (c *children) start(lc *libcontainer.Container, p *libcontainer.Process) error {
	err := lc.Start(p)
	pid, pidErr := p.Pid()
	if err == nil && pidErr == nil {
		c.mu.Lock()
		c.owned[pid] = p
		c.mu.Unlock()
		return nil
	}
	if pidErr == nil {
		// It may have come as far as to run.
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait() // often it was waited for already
	}
	select {
	case c.failed <- struct{}{}:
	default:
	}
	return err
}

// wait waits for the end of a process.
func (c *children) wait(p *libcontainer.Process) (*os.ProcessState, error) {
	if pid, err := p.Pid(); err == nil {
		awaitEnd(pid)
	}
	state, err := p.Wait()
	if pid, err := p.Pid(); err == nil {
		c.mu.Lock()
		if c.owned[pid] == p {
			delete(c.owned, pid)
		}
		c.mu.Unlock()
	}
	return state, err
}

// awaitEnd returns when a child has ended, which is still to be waited for. It
// needs no thread, other than a wait by libcontainer, with which each container
// would cost one of 40 KiB. Where the kernel does not offer that (before
// 5.10, pidfd_open(2)) it returns at once, and also if there is no such child,
// whoever has its number by now.
func awaitEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool {
		err := unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOWAIT, nil)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// reap waits for the strays, until there are none. One of a start that is
// still going on is waited for by libcontainer before it is seen twice; if
// not, that start has failed as well.
func (c *children) reap() {
	for deadline := time.Now().Add(strayWait); time.Now().Before(deadline); {
		before := c.strays()
		if len(before) == 0 {
			return
		}
		time.Sleep(strayPoll)
		for pid, dead := range c.strays() {
			if dead && before[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // it may be another's by now
			}
		}
	}
}

// strays lists the children of this process that nobody owns, and whether
// they are dead.
func (c *children) strays() map[int]bool {
	found := map[int]bool{}
	for _, pid := range ownChildren() {
		c.mu.Lock()
		_, owned := c.owned[pid]
		c.mu.Unlock()
		if name, fields := procStat(pid); !owned && strings.HasPrefix(name, stageName) && len(fields) > 0 {
			found[pid] = fields[0] == "Z"
		}
	}
	return found
}

// ownChildren lists the children of this process.
func ownChildren() (pids []int) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended has no children
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killStarting kills the processes of a start that is going on: the children of
// this process that have the pipe of this inode for their stdout.
func killStarting(pipe uint64) {
	for _, pid := range ownChildren() {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Only now: before, the number may have become another's.
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid)); err == nil && to == fmt.Sprintf("pipe:[%d]", pipe) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// procStat reads proc_pid_stat(5): the name of a process and the fields that
// follow it, from the state on. It returns nothing for a process that is gone.
func procStat(pid int) (name string, fields []string) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", nil
	}
	// The name, in parentheses, may hold anything.
	begin, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if begin < 0 || end < begin {
		return "", nil
	}
	return string(data[begin+1 : end]), strings.Fields(string(data[end+1:]))
}

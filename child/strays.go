package child

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"
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

// Children starts the processes of all containers, and waits for them.
//
// A start that fails in the middle leaves children behind that libcontainer,
// made for a program that then ends, does not wait for. In the pid namespace
// of a container that is not only untidy: its pid 1 cannot end before the
// last of them has been waited for (pid_namespaces(7)).
type Children struct {
	failed chan struct{} // has an item after a failed start

	mu    sync.Mutex
	owned map[int]*libcontainer.Process
	// raisers counts the starts during which the limit of locked memory must
	// not be lowered.
	raisers int
}

// New returns what has no children yet.
func New() *Children {
	c := &Children{failed: make(chan struct{}, 1), owned: map[int]*libcontainer.Process{}}
	go func() {
		for range c.failed {
			c.reap()
		}
	}()
	return c
}

// Start starts a process that will be waited for by wait. What has been
// started of it when ctx ends is killed: nothing else bounds a start that the
// container, a file system or the kernel holds up. (One with a CPU affinity of
// its own is made by another thread, and not killed.)
func (c *Children) Start(ctx context.Context, lc *libcontainer.Container, p *libcontainer.Process) error {
	// The kernel lists the children of each thread apart, so those of this
	// start are among this thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list := fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid())
	over, aborted := make(chan struct{}), make(chan struct{})
	unused := context.AfterFunc(ctx, func() {
		defer close(aborted)
		c.abort(list, over)
	})
	lower := func() {}
	if p.Init {
		lower = c.keepMemlock()
	}
	err := lc.Start(p)
	lower()
	close(over)
	if !unused() {
		<-aborted // before the thread serves another start
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
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

// abort kills what a start has come to that is going on in a thread with this
// list of children.
func (c *Children) abort(list string, over <-chan struct{}) {
	for {
		c.killStrays(list)
		select {
		case <-over:
			return
		case <-time.After(strayPoll):
		}
	}
}

// killStrays kills those of one thread.
func (c *Children) killStrays(list string) {
	for _, pid := range childrenOf(list) {
		process, err := OpenProc(pid)
		if err != nil {
			continue
		}
		// It may have been waited for meanwhile, and its number be another's:
		// not if it still is in the list now.
		if _, ok := c.stray(process, pid); ok && slices.Contains(childrenOf(list), pid) {
			_ = process.Signal(unix.SIGKILL)
		}
		process.Close()
	}
}

// Wait waits for the end of a process.
func (c *Children) Wait(p *libcontainer.Process) (*os.ProcessState, error) {
	if pid, err := p.Pid(); err == nil {
		AwaitEnd(pid)
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

// StatusOf is how a process ended. A wait that failed, which only a foreign
// reaper could cause, counts as killed.
func StatusOf(state *os.ProcessState, err error) syscall.WaitStatus {
	if state != nil {
		return state.Sys().(syscall.WaitStatus)
	}
	log.L.WithError(err).Error("wait for process")
	return syscall.WaitStatus(unix.SIGKILL)
}

// AwaitEnd returns when a child has ended, which is still to be waited for. It
// needs no thread, other than a wait by libcontainer, with which each container
// would cost one of 40 KiB. Where the kernel does not offer that (before
// 5.10, pidfd_open(2)) it returns at once, and also if there is no such child,
// whoever has its number by now; then ended is false.
func AwaitEnd(pid int) (ended bool) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = conn.Read(func(fd uintptr) bool {
		err := unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOWAIT, nil)
		ended = err == nil
		return !errors.Is(err, unix.EAGAIN)
	})
	return ended && err == nil
}

// reap waits for the strays, until there are none. One of a start that is
// still going on is waited for by libcontainer before it is seen twice; if
// not, that start has failed as well.
func (c *Children) reap() {
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
func (c *Children) strays() map[int]bool {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	found := map[int]bool{}
	for _, list := range lists {
		maps.Copy(found, c.straysOf(list))
	}
	return found
}

// straysOf lists those of one thread.
func (c *Children) straysOf(list string) map[int]bool {
	found := map[int]bool{}
	for _, pid := range childrenOf(list) {
		process, err := OpenProc(pid)
		if err != nil {
			continue
		}
		if s, ok := c.stray(process, pid); ok {
			found[pid] = s.state == "Z"
		}
		process.Close()
	}
	return found
}

// stray reports whether a process is one of libcontainer's before it has become
// what it was started for, and nobody's.
func (c *Children) stray(process Proc, pid int) (Stat, bool) {
	c.mu.Lock()
	_, owned := c.owned[pid]
	c.mu.Unlock()
	s, ok := process.Stat()
	return s, ok && !owned && strings.HasPrefix(s.name, stageName)
}

// childrenOf reads a thread's list of children (proc_tid_children(5)).
func childrenOf(list string) []int {
	data, err := os.ReadFile(list)
	if err != nil {
		return nil // a thread that has ended has no children
	}
	var pids []int
	for _, field := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

package shim

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/cgroup"
)

const (
	// killWait bounds how long the processes of a container may take to die
	// of SIGKILL, or be forked anew.
	killWait = 2 * time.Second
	// removeWait bounds how long a Delete removes cgroups. The next one goes
	// on from there.
	removeWait = 10 * time.Second
	// insistAfter is when a container that was killed and is not gone is
	// looked at: mostly it is gone by then. Each further pause is twice as
	// long, up to the longest.
	insistAfter  = 100 * time.Millisecond
	insistAtMost = 5 * time.Second
)

// killAll ends all processes of a container. With the end of pid 1 the kernel
// ends those of a pid namespace of its own. Others are found by the cgroups,
// and not by libcontainer, which goes there by paths: a container can make
// cgroups that no path leads to.
func (c *container) killAll() error {
	c.insisting.Do(func() { go c.insist() })
	if !c.sharesPIDs() {
		// libcontainer's own way waits for a Start that goes on, which
		// something outside of the container can hold up.
		first := c.init.proc.Signal(unix.SIGKILL)
		err := c.lc.Signal(unix.SIGKILL)
		if first == nil && isOver(err) {
			return nil // that fast
		}
		return err
	}
	err := c.init.proc.Signal(unix.SIGKILL) // it may have left the cgroups
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return errors.Join(err, c.killCgroups())
}

// killCgroups kills what is in the container's cgroups, while they are its own.
func (c *container) killCgroups() error {
	c.removing.Lock()
	defer c.removing.Unlock()
	if c.destroyed {
		return nil
	}
	return cgroup.Kill(c.made.Cgroups, killWait)
}

// insist kills what keeps a container that was killed: on cgroup v1 a process
// in it may have frozen pid 1, and do so again each time it is thawed.
func (c *container) insist() {
	for pause := insistAfter; ; pause = min(2*pause, insistAtMost) {
		select {
		case <-c.gone:
			return
		case <-time.After(pause):
		}
		if err := c.killCgroups(); err != nil {
			c.log.WithError(err).Warn("kill what keeps the container")
		}
	}
}

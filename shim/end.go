package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/child"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
)

// haltAgain is how soon a halt is asked for again of an init that may not have
// listened yet. Each further pause is twice as long: an init that does listen
// may begin anew with each request, and on a busy host never finish.
const haltAgain = time.Second

// askHalt has the init asked to halt. It does not wait.
func (c *container) askHalt() {
	select {
	case c.haltAsked <- struct{}{}:
	default:
	}
}

// haltWhenAsked brings the init down in order when that is asked for, until
// pid 1 is gone.
func (c *container) haltWhenAsked() {
	defer close(c.haltOver)
	select {
	case <-c.haltAsked:
	case <-c.gone:
		return
	}
	c.beforeHalt()
	c.haltInit()
}

// beforeHalt is what comes between the end of a command that is a service, or the
// certainty that there will be none, and the halt of its init.
func (c *container) beforeHalt() {
	if c.shape != initmode.ServiceOfInit {
		return
	}
	c.hooks.EndPrestart()
	run := c.hooks.Waiting() && !c.life.Killed() // else they run when pid 1 is gone
	e := c.conclude(time.Now(), run)
	if run {
		c.hooks.Poststop(e, c.leaving, c.inside())
	}
}

// haltInit asks the init to bring everything down, and kills it when it has not
// done so in time.
func (c *container) haltInit() {
	deadline := time.After(c.haltTimeout)
	for pause := haltAgain; ; pause *= 2 {
		if err := c.init.proc.Signal(c.halt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.log.WithError(err).Warn("halt the init")
		}
		select {
		case <-c.gone:
			return
		case <-time.After(pause):
		case <-deadline:
			c.log.WithField("timeout", c.haltTimeout).Warn("the init did not halt in time, killing it")
			if err := c.killAll(); err != nil {
				c.log.WithError(err).Warn("kill the init")
			}
			return
		}
	}
}

// waitInit follows pid 1 to its end and then announces the end of the task:
// after those of all its execs, and when every byte of its output is with
// the reader.
func (c *container) waitInit() {
	state, err := c.children.Wait(c.init.proc)
	at := time.Now()
	ws := child.StatusOf(state, err)
	c.life.InitGone(ws)
	close(c.gone)
	c.hooks.CallOff()

	_ = c.init.wait(context.Background()) // its start is announced first
	defer c.init.leave()
	c.endExecs()
	_ = c.closing.run(ended) // none of that fails
	if c.life.Unexplained() {
		c.init.io.Complain(errors.New("the init ended before it started the command"))
	}
	e := c.conclude(at, true)
	c.log.WithField("status", e.Code).WithField("init", fmt.Sprintf("%#x", uint32(ws))).Debug("container ended")
	// Whoever cleans up after a shim that is killed from here on knows it.
	if err := c.bundle.Store(bundle.ExitFile, bundle.Exit{PID: c.init.pid, Status: e.Code, At: at}); err != nil {
		c.log.WithError(err).Warn("store the exit status")
	}
	c.afterEnd(e)
	c.init.io.Finish(c.stuck())
	c.init.exited(e.Code, at)
	c.events.Add(&eventstypes.TaskExit{
		ContainerID: c.id,
		ID:          c.id,
		Pid:         uint32(c.init.pid),
		ExitStatus:  e.Code,
		ExitedAt:    protobuf.ToTimestamp(at),
	})
	c.init.end()
}

// endExecs ends what runs beside a pid 1 that is gone, and waits until that is
// announced. Nothing else is started.
func (c *container) endExecs() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	if c.sharesPIDs() {
		if err := c.killCgroups(); err != nil {
			c.log.WithError(err).Warn("kill the processes that pid 1 left")
		}
	}
	c.killExecs()
	c.running.Wait()
}

// killExecs kills the execs that run beside a pid 1 that is gone. They die with
// it where it has a pid namespace, and elsewhere with the container's cgroup,
// unless one of them has left that.
func (c *container) killExecs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.execs {
		if p.current() == tasktypes.Status_RUNNING {
			_ = p.proc.Signal(unix.SIGKILL) // it may have ended
		}
	}
}

// stopListening ends everything that hears what the container says, at once:
// what has been said is taken in, and who holds that up is waited for no longer
// than the longest of them.
func (c *container) stopListening() error {
	var ends sync.WaitGroup
	ends.Go(func() { _ = c.console.Close() }) // its last words may say more
	ends.Go(c.watch.Close)
	ends.Go(func() {
		c.server.Close()
		c.components.Close()
	})
	ends.Wait()
	c.life.Close()
	return nil
}

// conclude judges how the command has ended, and reports a crash that ends the
// container. With tell somebody else is about to be told.
func (c *container) conclude(at time.Time, tell bool) life.Ending {
	oom := c.life.NeedsOOM() && c.oomKilled()
	e, crashed := c.life.Conclude(at, oom, tell)
	if crashed {
		c.reportCrash(e)
	}
	return e
}

// afterEnd is what is done when pid 1 is gone, with the ending that is about to be
// announced.
func (c *container) afterEnd(e life.Ending) {
	c.made.State = hooks.Annotated(c.made.State, e)
	if len(c.made.Poststop) > 0 {
		if err := c.bundle.Store(bundle.MadeFile, c.made); err != nil {
			c.log.WithError(err).Warn("store what the host's hooks are told")
		}
	}
	if c.shape.HasInit() {
		<-c.haltOver // a hook in the container ends with it
	}
	c.hooks.PoststopAlone(e, c.rootfs)
	c.hooks.Release()
}

package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"

	"containerd-shim-rich/event"

	"containerd-shim-rich/stdio"

	"containerd-shim-rich/child"

	"containerd-shim-rich/cgroup"

	"containerd-shim-rich/bundle"
)

// container is a task: pid 1, what is executed beside it, and what has to be
// cleaned up after them.
type container struct {
	id       string
	bundle   bundle.Bundle
	events   *event.Queue
	children *child.Children
	loggers  *stdio.Loggers
	programs *programs
	options  config.Options
	plan     *initmode.Plan
	spec     *specs.Spec // as rewritten
	made     bundle.Made
	lc       *libcontainer.Container
	fence    *cgroup.Fence // nil unless the container may write to its cgroups on cgroup v2
	log      *log.Entry

	init    *process
	pid1    child.Proc        // of init, for as long as there is a container
	app     *app              // nil unless pid 1 is an init that uses the launcher
	watch   *initWatch        // what it tells about its state; may be nil
	console *stdio.ConsoleLog // what pid 1 itself says, if it has a console of its own
	metrics cgroup.Metrics    // the container's cgroup
	ooms    *cgroup.OOMWatch  // nil if the kernel refused it
	// components run beside the CMD; nil if there are none.
	components *componentSet
	shares     cgroup.Shares
	gone       chan struct{} // closed when pid 1 has been waited for
	hooks      *hookSet
	halting    sync.Once
	halted     atomic.Bool   // the init was asked to halt
	lastCrash  sync.Once     // the report of the crash that ends the container
	crashes    *rate.Limiter // the reports of those that do not

	poststart []specs.Hook

	// announce is held while the start of pid 1 is announced, so that its
	// end cannot be announced before.
	announce sync.Mutex

	// starters are what execs are started by, once pid 1 is there.
	starters *starters

	// freezing is held while the container is paused or resumed.
	freezing sync.Mutex

	insisting sync.Once // the end of a container that was killed

	// removing is held while the container is removed.
	removing  sync.Mutex
	destroyed bool

	mu        sync.Mutex
	resources *specs.LinuxResources
	execs     map[string]*process
	running   sync.WaitGroup // execs whose end is not announced yet
	ended     bool           // pid 1 is gone: nothing may be started any more
	paused    bool
	killed    bool
}

// process returns pid 1 for an empty execID.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.execs[execID]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("exec %s of container %s: %w", execID, c.id, errdefs.ErrNotFound)
}

// sharesPIDs reports whether processes of the container may outlive pid 1.
func (c *container) sharesPIDs() bool {
	cfg := c.lc.Config()
	return !cfg.Namespaces.IsPrivate(configs.NEWPID)
}

// isStop reports whether a signal asks the task to stop. In a pod any does: no
// engine tells the runtime the image's stop signal there, and the CRI has no
// call to send another.
func (c *container) isStop(sig syscall.Signal) bool {
	return initmode.IsInPod(c.spec.Annotations) || slices.Contains([]syscall.Signal{
		unix.SIGTERM,
		syscall.Signal(c.options.StopSignal),
		syscall.Signal(initmode.ImageStopSignal(c.spec.Annotations)),
	}, sig)
}

// haltAgain is how soon a halt is asked for again of an init that may not have
// listened yet. Each further pause is twice as long: an init that does listen
// may begin anew with each request, and on a busy host never finish.
const haltAgain = time.Second

// halt asks the init to bring everything down in order, and kills it when it
// has not done so in time. It does not wait.
func (c *container) halt() {
	c.halting.Do(func() {
		c.halted.Store(true)
		go func() {
			c.afterCMD()
			deadline := time.After(c.options.HaltTimeout)
			for pause := haltAgain; ; pause *= 2 {
				if err := c.init.proc.Signal(c.plan.Halt); err != nil && !errors.Is(err, os.ErrProcessDone) {
					c.log.WithError(err).Warn("halt the init")
				}
				select {
				case <-c.gone:
					return
				case <-time.After(pause):
				case <-deadline:
					c.log.WithField("timeout", c.options.HaltTimeout).Warn("the init did not halt in time, killing it")
					if err := c.killAll(); err != nil {
						c.log.WithError(err).Warn("kill the init")
					}
					return
				}
			}
		}()
	})
}

// waitInit follows pid 1 to its end and then announces the end of the task:
// after those of all its execs, and when every byte of its output is with
// the reader.
func (c *container) waitInit() {
	state, err := c.children.Wait(c.init.proc)
	at := time.Now()
	close(c.gone)
	c.hooks.stop()
	ws := child.StatusOf(state, err)

	c.announce.Lock()
	defer c.announce.Unlock()
	c.mu.Lock()
	c.ended = true
	killed := c.killed
	c.mu.Unlock()
	if c.sharesPIDs() {
		if err := c.killCgroups(); err != nil {
			c.log.WithError(err).Warn("kill the processes that pid 1 left")
		}
	}
	c.killExecs()
	c.running.Wait()
	c.stopListening()
	end := c.known(killed)
	end.init = ws
	status := end.status()
	c.log.WithField("status", status).WithField("init", fmt.Sprintf("%#x", uint32(ws))).Debug("container ended")
	if end.service && end.app == nil && end.stop == 0 && !killed {
		c.init.io.Complain(errors.New("the init ended before it started the command"))
	}
	// Whoever cleans up after a shim that is killed from here on knows it.
	if err := c.bundle.Store(bundle.ExitFile, bundle.Exit{PID: c.init.pid, Status: status, At: at}); err != nil {
		c.log.WithError(err).Warn("store the exit status")
	}
	c.afterInit(end, status, at)
	c.init.io.Finish(c.stuck())
	if c.ooms != nil {
		c.ooms.Stop()
	}
	c.init.exited(status, at)
	c.events.Add(&eventstypes.TaskExit{
		ContainerID: c.id,
		ID:          c.id,
		Pid:         uint32(c.init.pid),
		ExitStatus:  status,
		ExitedAt:    protobuf.ToTimestamp(at),
	})
	c.init.end()
}

// stopListening ends everything that hears what the container says, at once:
// what has been said is taken in, and who holds that up is waited for no longer
// than the longest of them.
func (c *container) stopListening() {
	var ends sync.WaitGroup
	if c.console != nil {
		ends.Go(func() { _ = c.console.Close() }) // its last words may say more
	}
	if c.watch != nil {
		ends.Go(c.watch.close)
	}
	if c.app != nil {
		c.app.close()
	}
	c.components.close()
	c.shares.Close()
	ends.Wait()
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

// stuck is how long the end of the task, or of an exec, is held up by a reader
// that takes nothing.
func (c *container) stuck() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return stdio.KilledStuck
	}
	return stdio.DrainStuck
}

// known is what is known about the container's end but for that of pid 1.
// killed says that the task was sent SIGKILL before.
func (c *container) known(killed bool) ending {
	e := ending{full: c.plan.Halt != 0, service: c.plan.Service != nil, killed: killed}
	e.unprepared = c.hooks.prestartFailed() || e.full && !killed && c.components.failed() != ""
	if c.app != nil {
		c.app.mu.Lock()
		defer c.app.mu.Unlock()
		e.unfit, e.unprepared = c.app.unfit, e.unprepared || c.app.unfit
		e.app, e.own, e.stop, e.reboot, e.halted = c.app.result, c.app.own, c.app.stop, c.app.reboot, c.app.halted
	}
	return e
}

// destroy removes a container whose processes are gone.
func (c *container) destroy() error {
	c.removing.Lock()
	defer c.removing.Unlock()
	if !c.destroyed {
		if err := removeContainer(c.lc, c.made.Cgroups, removeWait); err != nil {
			return fmt.Errorf("destroy container: %w", err)
		}
		c.destroyed = true
	}
	if err := runPoststop(c.bundle, &c.made, 0); err != nil {
		// Everything is gone, a hook failed (runtime-spec, Lifecycle 13).
		c.log.WithError(err).Warn("poststop hooks")
	}
	if err := sweep(c.bundle, c.made); err != nil {
		return err
	}
	c.pid1.Close()
	return os.RemoveAll(c.bundle.Path())
}

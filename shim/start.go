package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
	"containerd-shim-rich/stdio"
)

// Start lets pid 1 of a created container go on, or starts an exec.
func (s *service) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if r.ExecID == "" {
		err = c.start(ctx)
	} else {
		err = c.startExec(ctx, p)
	}
	if err != nil {
		return nil, toRPC(err)
	}
	return &task.StartResponse{Pid: uint32(p.pid)}, nil
}

func (c *container) start(ctx context.Context) error {
	if err := c.init.wait(ctx); err != nil { // its end is announced later
		return err
	}
	defer c.init.leave()
	if err := c.init.need("start", tasktypes.Status_CREATED); err != nil {
		return err
	}
	if c.shape != initmode.ServiceOfInit {
		if err := c.prestart(); err != nil {
			return err
		}
		now := time.Now()
		c.hooks.Starting(now)
		c.life.Begins(now)
	}
	if err := c.lc.Exec(); err != nil {
		c.life.NotStarted()
		return fmt.Errorf("start pid 1: %w", err)
	}
	if err := hooks.RunPoststart(ctx, c.poststart, c.made.State, c.init.pid); err != nil {
		// As runtime-spec says, Lifecycle 9.
		return errors.Join(err, c.kill(unix.SIGKILL))
	}
	c.life.Started()
	c.init.started(c.init.pid, tasktypes.Status_RUNNING)
	if c.shape == initmode.InitItself {
		c.components.CommandIsInit(c.follow)
	}
	c.events.Add(&eventstypes.TaskStart{ContainerID: c.id, Pid: uint32(c.init.pid)})
	return nil
}

func (c *container) startExec(ctx context.Context, p *process) error {
	if err := p.take(ctx, false); err != nil {
		return err
	}
	defer p.leave()
	if err := p.need("start", tasktypes.Status_CREATED); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.given, func() { cancel(context.Cause(p.given)) })()
	c.mu.Lock()
	if err := c.alive(); err != nil {
		if c.ended {
			p.never()
		}
		c.mu.Unlock()
		return err
	}
	c.running.Add(1)
	c.mu.Unlock()
	go func() {
		// The end of the container waits for that of this start.
		select {
		case <-c.gone:
			cancel(libcontainer.ErrNotRunning)
		case <-ctx.Done():
		}
	}()
	cgroup.AwaitGrace()
	if err := c.runExec(ctx, p); err != nil {
		c.running.Done()
		p.never()
		return err
	}
	c.events.Add(&eventstypes.TaskExecStarted{ContainerID: c.id, ExecID: p.id, Pid: uint32(p.pid)})
	// Only now: its end must be announced after its start.
	go c.waitExec(p)
	return nil
}

func (c *container) runExec(ctx context.Context, p *process) (err error) {
	if p.proc, err = child.NewProcess(p.spec); err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	uid, gid, err := c.hostRoot()
	if err != nil {
		return err
	}
	defer func() {
		if streams := p.stdio(); err != nil && streams != nil {
			streams.Close()
		}
	}()
	if err := p.open(ctx, stdio.Owner{ID: c.id, Namespace: c.namespace, Loggers: c.loggers}, uid, gid); err != nil {
		return err
	}
	if err := c.runBeside(ctx, p); err != nil {
		return fmt.Errorf("exec %s: %w", p.id, err)
	}
	pid, err := p.proc.Pid()
	if err != nil {
		return err
	}
	p.started(pid, tasktypes.Status_RUNNING)
	return nil
}

// runBeside runs an exec when it is its turn.
func (c *container) runBeside(ctx context.Context, p *process) error {
	if err := c.startInside(ctx, p.proc, func(lc *libcontainer.Container) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return p.run(ctx, c.children, lc)
	}); err != nil {
		if c.life.Halting() || c.pid1.Exiting() {
			// The init kills what it finds, and after its end the kernel
			// does. libcontainer only knows that the process went away.
			err = withClass(err, errdefs.ErrFailedPrecondition)
		}
		if _, pidErr := p.proc.Pid(); pidErr == nil {
			// It may run, but without a terminal it is of no use.
			_ = p.proc.Signal(unix.SIGKILL)
			_, _ = c.children.Wait(p.proc)
		}
		return err
	}
	return nil
}

// inCgroup starts a process where pid 1 is in the container's cgroups, also if
// that moves meanwhile.
func (c *container) inCgroup(p *libcontainer.Process, start func() error) error {
	c.fence.Place(p, c.init.pid)
	err := start()
	if err := c.fence.Clear(c.init.pid); err != nil && !c.pid1.Exiting() {
		c.log.WithError(err).Warn("move processes to the init's cgroup")
	}
	return err
}

// waitExec follows an exec to its end and announces it.
func (c *container) waitExec(p *process) {
	defer c.running.Done()
	state, err := c.children.Wait(p.proc)
	at := time.Now()
	status := launch.ExitStatus(child.StatusOf(state, err))
	p.io.Leave(c.stuck())
	p.exited(status, at)
	c.events.Add(&eventstypes.TaskExit{
		ContainerID: c.id,
		ID:          p.id,
		Pid:         uint32(p.pid),
		ExitStatus:  status,
		ExitedAt:    protobuf.ToTimestamp(at),
	})
	p.end()
}

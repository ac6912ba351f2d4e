package shim

import (
	"context"
	"fmt"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/errdefs"

	"containerd-shim-rich/launch"
)

// Start lets pid 1 of a created container go on, or starts an exec.
func (s *service) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if r.ExecID == "" {
		err = c.start()
	} else {
		err = c.startExec(ctx, p, s.namespace)
	}
	if err != nil {
		return nil, toRPC(err)
	}
	return &task.StartResponse{Pid: uint32(p.pid)}, nil
}

func (c *container) start() error {
	c.announce.Lock()
	defer c.announce.Unlock()
	if err := c.init.need("start", tasktypes.Status_CREATED); err != nil {
		return err
	}
	if err := c.lc.Exec(); err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	c.init.started(c.init.pid, tasktypes.Status_RUNNING)
	c.events.add(&eventstypes.TaskStart{ContainerID: c.id, Pid: uint32(c.init.pid)})
	return nil
}

func (c *container) startExec(ctx context.Context, p *process, namespace string) error {
	if err := p.need("start", tasktypes.Status_CREATED); err != nil {
		return err
	}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return fmt.Errorf("container %s: its pid 1 has ended: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	c.running.Add(1)
	c.mu.Unlock()
	if err := c.runExec(ctx, p, namespace); err != nil {
		c.running.Done()
		return err
	}
	c.events.add(&eventstypes.TaskExecStarted{ContainerID: c.id, ExecID: p.id, Pid: uint32(p.pid)})
	// Only now: its end must be announced after its start.
	go c.waitExec(p)
	return nil
}

func (c *container) runExec(ctx context.Context, p *process, namespace string) (err error) {
	if p.proc, err = newLibcontainerProcess(p.spec); err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	uid, gid, err := c.hostRoot()
	if err != nil {
		return err
	}
	defer func() {
		if streams := p.stdio(); err != nil && streams != nil {
			streams.close()
		}
	}()
	if err := p.open(ctx, loggerInfo{c.id, namespace}, uid, gid); err != nil {
		return err
	}
	if c.fence != nil {
		// libcontainer itself turns to the init's cgroup only when the
		// container's does not take processes any more: later than the init
		// has left it, and too late for one that wants it to be empty.
		if leaf, err := c.fence.leaf(c.init.pid); err == nil && leaf != "" {
			p.proc.SubCgroupPaths = map[string]string{"": leaf}
		}
	}
	if err := p.run(c.lc); err != nil {
		return fmt.Errorf("exec %s: %w", p.id, err)
	}
	if c.fence != nil {
		if err := c.fence.clear(c.init.pid); err != nil {
			c.log.WithError(err).WithField("exec", p.id).Warn("move to the init's cgroup")
		}
	}
	pid, err := p.proc.Pid()
	if err != nil {
		return err
	}
	p.started(pid, tasktypes.Status_RUNNING)
	return nil
}

// waitExec follows an exec to its end and announces it.
func (c *container) waitExec(p *process) {
	defer c.running.Done()
	state, err := p.proc.Wait()
	at := time.Now()
	status := launch.ExitStatus(waitStatus(state, err))
	p.io.finish()
	p.exited(status, at)
	c.events.add(&eventstypes.TaskExit{
		ContainerID: c.id,
		ID:          p.id,
		Pid:         uint32(p.pid),
		ExitStatus:  status,
		ExitedAt:    protobuf.ToTimestamp(at),
	})
	close(p.done)
}

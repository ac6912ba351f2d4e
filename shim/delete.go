package shim

import (
	"context"
	"errors"
	"fmt"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/opencontainers/runc/libcontainer"

	"containerd-shim-rich/stdio"
)

// Delete removes an ended exec, or a container that has ended or was never
// started. A Create that still goes on is given up: for containerd it failed.
func (s *service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	if r.ExecID == "" {
		s.giveUp(ctx, r.ID)
	}
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if r.ExecID != "" {
		if err := c.deleteExec(ctx, p); err != nil {
			return nil, toRPC(err)
		}
		return p.deleted(), nil
	}
	if err := p.need("delete", tasktypes.Status_CREATED, tasktypes.Status_STOPPED); err != nil {
		return nil, toRPC(err)
	}
	if p.current() == tasktypes.Status_CREATED {
		if err := c.killAll(); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
			return nil, toRPC(err)
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, toRPC(fmt.Errorf("wait for the end of pid 1: %w", ctx.Err()))
	}
	if err := c.remove(ctx); err != nil {
		return nil, toRPC(err)
	}
	s.drop(r.ID)
	response := p.deleted()
	s.events.Add(&eventstypes.TaskDelete{
		ContainerID: c.id,
		Pid:         response.Pid,
		ExitStatus:  response.ExitStatus,
		ExitedAt:    response.ExitedAt,
	})
	return response, nil
}

// remove removes a container that has ended. If that fails the next Delete goes
// on with it.
func (c *container) remove(ctx context.Context) error {
	if err := c.init.wait(ctx); err != nil {
		return err
	}
	defer c.init.leave()
	return c.closing.run(removed)
}

// deleteExec removes an exec. Its streams come to their end, also where a
// process that it has left behind holds them.
func (c *container) deleteExec(ctx context.Context, p *process) error {
	if err := p.take(ctx, true); err != nil {
		return err
	}
	defer p.leave()
	if err := p.need("delete", tasktypes.Status_CREATED, tasktypes.Status_STOPPED); err != nil {
		return err
	}
	if io := p.stdio(); io != nil {
		io.Await(stdio.ExecDrain)
		io.Close()
	}
	c.mu.Lock()
	delete(c.execs, p.id)
	c.mu.Unlock()
	p.end() // it may never have been started
	return nil
}

func (p *process) deleted() *task.DeleteResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &task.DeleteResponse{
		Pid:        uint32(p.pid),
		ExitStatus: p.status,
		ExitedAt:   protobuf.ToTimestamp(p.at),
	}
}

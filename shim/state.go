package shim

import (
	"context"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
)

// State describes a task or an exec.
func (s *service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	c.mu.Lock()
	paused := c.paused
	c.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.state
	if paused && state == tasktypes.Status_RUNNING {
		state = tasktypes.Status_PAUSED
	}
	return &task.StateResponse{
		ID:         c.id,
		ExecID:     p.id,
		Bundle:     string(c.bundle),
		Pid:        uint32(p.pid),
		Status:     state,
		Stdin:      p.streams.Stdin,
		Stdout:     p.streams.Stdout,
		Stderr:     p.streams.Stderr,
		Terminal:   p.streams.Terminal,
		ExitStatus: p.status,
		ExitedAt:   protobuf.ToTimestamp(p.at),
	}, nil
}

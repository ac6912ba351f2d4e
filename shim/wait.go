package shim

import (
	"context"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/protobuf"
)

// Wait returns when a task or an exec has ended.
func (s *service) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, toRPC(ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &task.WaitResponse{ExitStatus: p.status, ExitedAt: protobuf.ToTimestamp(p.at)}, nil
}

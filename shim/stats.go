package shim

import (
	"context"
	"fmt"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
)

// Stats returns the resource usage of a container.
func (s *service) Stats(_ context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if c.metrics == nil {
		return nil, toRPC(fmt.Errorf("container %s has no cgroup: %w", r.ID, errdefs.ErrNotFound))
	}
	stats, err := c.metrics()
	if err != nil {
		return nil, toRPC(fmt.Errorf("read cgroup: %w", err))
	}
	body, err := typeurl.MarshalAnyToProto(stats)
	if err != nil {
		return nil, toRPC(err)
	}
	return &task.StatsResponse{Stats: body}, nil
}

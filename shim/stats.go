package shim

import (
	"context"
	"fmt"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
)

// metricsSource reads the resource usage of a cgroup, as the metrics of
// containerd's cgroups package, v1 or v2.
type metricsSource func() (any, error)

// newMetrics finds the cgroup that has the limits of the container, whose
// pid 1 is given.
func (c *container) newMetrics(pid int) (metricsSource, error) {
	if cgroups.Mode() == cgroups.Unified {
		var at string
		if c.fence != nil {
			at = c.fence.outer()
		} else {
			var err error
			if at, err = cgroup2.PidGroupPath(pid); err != nil {
				return nil, fmt.Errorf("find cgroup: %w", err)
			}
		}
		cg, err := cgroup2.Load(at)
		if err != nil {
			return nil, fmt.Errorf("load cgroup %s: %w", at, err)
		}
		return func() (any, error) { return cg.Stat() }, nil
	}
	cg, err := cgroup1.Load(cgroup1.PidPath(pid))
	if err != nil {
		return nil, fmt.Errorf("load cgroup: %w", err)
	}
	return func() (any, error) { return cg.Stat(cgroup1.IgnoreNotExist) }, nil
}

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

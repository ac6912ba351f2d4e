package shim

import (
	"context"
	"fmt"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"containerd-shim-rich/cgroup"
)

// Pids lists all processes of a container by their ids on the host. Those of
// execs carry the exec's id.
func (s *service) Pids(_ context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	// After a restart containerd takes an empty list as a sign that the shim
	// has nothing to keep, and would lose a task that ended meanwhile.
	if c.init.current() == tasktypes.Status_STOPPED {
		return nil, toRPC(fmt.Errorf("container %s has ended: %w", c.id, errdefs.ErrFailedPrecondition))
	}
	pids, err := cgroup.Pids(cgroup.Whole(c.made.Cgroups))
	if err != nil {
		return nil, toRPC(err)
	}
	execs := map[int]string{}
	c.mu.Lock()
	for id, p := range c.execs {
		p.mu.Lock()
		execs[p.pid] = id
		p.mu.Unlock()
	}
	c.mu.Unlock()
	response := &task.PidsResponse{}
	for _, pid := range pids {
		info := &tasktypes.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execs[pid]; ok {
			if info.Info, err = typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: id}); err != nil {
				return nil, toRPC(err)
			}
		}
		response.Processes = append(response.Processes, info)
	}
	return response, nil
}

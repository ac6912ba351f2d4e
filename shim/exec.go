package shim

import (
	"context"
	"encoding/json"
	"fmt"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/stdio"
)

// Exec adds a process that Start will start.
func (s *service) Exec(_ context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := c.addExec(r); err != nil {
		return nil, toRPC(err)
	}
	cgroup.AwaitGrace() // it will be started soon
	return empty, nil
}

func (c *container) addExec(r *task.ExecProcessRequest) error {
	if r.ExecID == "" {
		return fmt.Errorf("exec id: empty: %w", errdefs.ErrInvalidArgument)
	}
	spec := &specs.Process{}
	if err := json.Unmarshal(r.Spec.GetValue(), spec); err != nil {
		return fmt.Errorf("exec %s: process: %w", r.ExecID, withClass(err, errdefs.ErrInvalidArgument))
	}
	if err := checkProcess(spec); err != nil {
		return fmt.Errorf("exec %s: %w", r.ExecID, err)
	}
	spec.Terminal = r.Terminal
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[r.ExecID] != nil {
		return fmt.Errorf("exec %s of container %s: %w", r.ExecID, c.id, errdefs.ErrAlreadyExists)
	}
	if err := c.alive(); err != nil {
		return err
	}
	p := newProcess(r.ExecID, stdio.Names{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}, spec)
	c.execs[r.ExecID] = p
	c.events.Add(&eventstypes.TaskExecAdded{ContainerID: c.id, ExecID: r.ExecID})
	return nil
}

// alive fails unless a process can be started in the container. The caller
// holds mu.
func (c *container) alive() error {
	if c.ended {
		return fmt.Errorf("container %s: its pid 1 has ended: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if c.paused {
		return fmt.Errorf("container %s is paused: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	return nil
}

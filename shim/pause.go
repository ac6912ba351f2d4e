package shim

import (
	"context"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Pause freezes all processes of a container.
func (s *service) Pause(_ context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := c.freeze("pause", true, c.lc.Pause); err != nil {
		return nil, toRPC(err)
	}
	c.events.Add(&eventstypes.TaskPaused{ContainerID: c.id})
	return empty, nil
}

// Resume lets the processes of a paused container go on.
func (s *service) Resume(_ context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := c.freeze("resume", false, c.lc.Resume); err != nil {
		return nil, toRPC(err)
	}
	c.events.Add(&eventstypes.TaskResumed{ContainerID: c.id})
	return empty, nil
}

// freeze pauses or resumes. A container that has not been started cannot be
// paused: its start would wait for an init that does not get on.
func (c *container) freeze(verb string, paused bool, do func() error) error {
	if err := c.init.need(verb, tasktypes.Status_RUNNING); err != nil {
		return err
	}
	c.freezing.Lock()
	defer c.freezing.Unlock()
	c.mu.Lock()
	was := c.paused
	c.paused = was || paused // no exec begins any more
	c.mu.Unlock()
	err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = paused
	if err != nil {
		c.paused = was
	}
	return err
}

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Update changes the resource limits of a container. What the request does
// not mention stays.
func (s *service) Update(_ context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := c.update(r.Resources); err != nil {
		return nil, toRPC(fmt.Errorf("update container %s: %w", r.ID, err))
	}
	return empty, nil
}

func (c *container) update(change *anypb.Any) error {
	if err := c.init.need("update", tasktypes.Status_CREATED, tasktypes.Status_RUNNING); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	merged, err := mergeResources(c.resources, change.GetValue())
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	cgroup, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{
		CgroupName: c.id,
		Spec:       &specs.Spec{Linux: &specs.Linux{Resources: merged}},
	}, nil)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	if err := c.shares.Fit(c.resources, merged); err != nil {
		return err
	}
	if err := c.fence.Update(cgroup.Resources, func() error { return c.set(*cgroup.Resources) }); err != nil {
		return err
	}
	c.resources = merged
	return c.shares.Fit(merged)
}

// set changes the limits of the container's own cgroups, and leaves the rules
// for devices alone: an update cannot change them, but others may have added
// some, for a GPU or by hand. runc update does the same.
//
// It needs a handle for itself. One that has left devices alone keeps that in
// mind, and libcontainer starts no process by it any more; the state file, from
// which other handles are loaded, does not have it.
func (c *container) set(resources cgroups.Resources) error {
	handle, err := c.starters.load()
	if err != nil {
		return err
	}
	// Config is a shallow copy. What changes in it has to be replaced, or
	// libcontainer could not go back when a limit is refused; then, too, it
	// must leave devices alone.
	cfg := handle.Config()
	cfg.Cgroups.SkipDevices = true
	own := *cfg.Cgroups
	resources.Devices, resources.SkipDevices = own.Devices, true
	own.Resources = &resources
	cfg.Cgroups = &own
	return handle.Set(cfg)
}

// mergeResources returns a copy of have in which the fields of a JSON object
// of the runtime-spec's LinuxResources are replaced. What runc update resets
// together with them is reset.
func mergeResources(have *specs.LinuxResources, change []byte) (*specs.LinuxResources, error) {
	merged, asked := &specs.LinuxResources{}, &specs.LinuxResources{}
	if have != nil {
		data, err := json.Marshal(have)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, merged); err != nil {
			return nil, err
		}
	}
	if len(change) == 0 {
		return merged, nil
	}
	if err := errors.Join(json.Unmarshal(change, asked), json.Unmarshal(change, merged)); err != nil {
		return nil, err
	}
	if m := asked.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		// Without a limit for memory there is none for the sum with swap:
		// libcontainer lifts that, if there is one, unless it is named.
		merged.Memory.Swap = nil
	}
	if c := asked.CPU; c != nil && c.Idle != nil && c.Shares == nil {
		// Idle cgroups have no shares of their own: the kernel refuses to
		// set them.
		merged.CPU.Shares = nil
	}
	return merged, nil
}

package child

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runc/libcontainer"

	"containerd-shim-rich/cgroup"
)

// Remove removes a container whose processes have ended. Its cgroups,
// which take limit at the most, are not left to libcontainer, which goes by paths.
func Remove(lc *libcontainer.Container, cgroups map[string]string, limit time.Duration) error {
	if err := cgroup.Remove(cgroups, limit); err != nil {
		return err
	}
	// A paused one would be thawed. It learns that there is nothing any more.
	if _, err := lc.Status(); err != nil {
		return err
	}
	return lc.Destroy()
}

// Destroy kills a container whose pid 1 is not a child of this process, and
// removes it. Its processes may take twice limit to die, and its cgroups limit to
// be emptied and removed.
func Destroy(c *libcontainer.Container, limit time.Duration) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	wait, err := Kill(state, 2*limit)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := errors.Join(cgroup.Kill(state.CgroupPaths, limit), wait()); err != nil {
		return err
	}
	return Remove(c, state.CgroupPaths, limit)
}

// DestroyCgroups kills what is in the cgroups of a container of which
// libcontainer has no state, and removes them.
func DestroyCgroups(paths map[string]string, limit time.Duration) error {
	return errors.Join(cgroup.Kill(paths, limit), cgroup.Remove(paths, limit))
}

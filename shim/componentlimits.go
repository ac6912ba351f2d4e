package shim

import (
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
)

// checkLimits refuses limits of components in a container without a pid
// namespace of its own. Their launchers get files to which the kernel lets them
// write any process id of their namespace, as the host's root: there that would
// be one of another container or of the host.
func checkLimits(list []initmode.Component, spec *specs.Spec) error {
	private, pidns := initmode.PrivatePID(spec)
	if private {
		return nil
	}
	for _, comp := range list {
		key := ""
		switch {
		case comp.Memory > 0:
			key = "memory"
		case comp.CPU > 0:
			key = "cpus"
		default:
			continue
		}
		return fmt.Errorf("%s: %s: linux.namespaces: the container %s, where a component cannot have limits of its own; "+
			"give the container its own pid namespace, choose no such component for it, or remove the key: %w",
			filepath.Join(components.Dir, comp.Name+".toml"), key, pidns, errdefs.ErrInvalidArgument)
	}
	return nil
}

// limitComponents makes the cgroups of the components with limits, below the
// container's own. Their launchers get the files with which they put a
// component there: only they know it in time, and a process id of theirs
// means a process of the container and no other.
func (b *builder) limitComponents() error {
	var limited []cgroup.Share
	for _, comp := range b.plan.Components {
		if comp.Memory > 0 || comp.CPU > 0 {
			limited = append(limited, cgroup.Share{Name: comp.Name, Memory: comp.Memory, CPU: comp.CPU})
		}
	}
	if len(limited) == 0 {
		return nil
	}
	state, err := b.lc.State()
	if err != nil {
		return err
	}
	// systemd has a cgroup v2 to itself: there the units say the limits.
	shares, err := cgroup.Divide(state.CgroupPaths, b.plan.Init == config.InitSystemd, b.init.pid, b.resources, limited)
	if err != nil {
		return err
	}
	b.shares = shares
	b.components.Limit(shares.Files)
	return nil
}

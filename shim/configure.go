package shim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be applied
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/hooks"
)

// configure makes libcontainer's container.
func (b *builder) configure(context.Context) error {
	if b.handler.systemdCgroup {
		if err := cgroup.CheckSystemd(b.spec); err != nil {
			return err
		}
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       b.id,
		UseSystemdCgroup: cgroup.ThroughSystemd(b.handler.systemdCgroup, b.spec),
		NoPivotRoot:      b.handler.noPivotRoot,
		NoNewKeyring:     b.handler.noNewKeyring,
		Spec:             b.spec,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	cfg.Rootfs = b.rootfs
	// Hooks are told the bundle by this label, which holds the working
	// directory.
	cfg.Labels = slices.DeleteFunc(cfg.Labels, func(l string) bool { return len(l) > 7 && l[:7] == "bundle=" })
	cfg.Labels = append(cfg.Labels, "bundle="+string(b.bundle))
	if b.spec.Linux != nil {
		b.resources = b.spec.Linux.Resources
	}
	unset, err := hooks.Configure(cfg, b.spec.Hooks)
	if err != nil {
		return err
	}
	if b.plan.PrivateCgroup {
		if err := b.raiseFence(cfg.Cgroups); err != nil {
			return fmt.Errorf("make the cgroup around the container's: %w", err)
		}
	}
	if b.lc, err = libcontainer.Create(b.bundle.Path(bundle.StateDir), b.id, cfg); err != nil {
		return err
	}
	state, err := b.lc.State()
	if err != nil {
		return errors.Join(err, b.lc.Destroy())
	}
	// From here on there may be mount points and cgroups, and the poststop
	// hooks are due.
	b.poststart = unset.Poststart
	b.made.Cgroups, b.made.Poststop, b.made.State = state.CgroupPaths, unset.Poststop, hooks.StateOf(b.id, b.bundle, b.spec)
	if err := b.bundle.Store(bundle.MadeFile, b.made); err != nil {
		return errors.Join(err, b.lc.Destroy())
	}
	b.closing.add(removed, b.runPoststop)
	b.closing.add(removed, b.removeContainer)
	return nil
}

// raiseFence makes the fence of a container, and turns cg into the
// configuration of a cgroup one level below.
func (b *builder) raiseFence(cg *cgroups.Cgroup) error {
	f, err := cgroup.NewFence(cg)
	if f == nil || err != nil {
		return err
	}
	// Noted first: sweep removes also what an error leaves.
	b.made.Fence = f.Around()
	if err := b.bundle.Store(bundle.MadeFile, b.made); err != nil {
		return err
	}
	b.fence = f
	b.closing.add(created, f.Release)
	return f.Raise()
}

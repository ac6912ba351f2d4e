package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
)

const (
	// cpuPeriod is the period of CPU limits in µs; the quota of a hundredth
	// of a processor is a hundredth of it.
	cpuPeriod = 100000
	// minQuota is the kernel's least quota in µs.
	minQuota = 1000
	// mainCgroup holds all processes but the components' with limits, where
	// a cgroup with processes cannot have children with limits.
	mainCgroup = "rich-main"
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
func (c *container) limitComponents() error {
	limited := false
	for _, comp := range c.plan.Components {
		limited = limited || comp.Memory > 0 || comp.CPU > 0
	}
	if !limited {
		return nil
	}
	state, err := c.lc.State()
	if err != nil {
		return err
	}
	if !cgroups.IsCgroup2UnifiedMode() {
		return c.components.limitV1(state.CgroupPaths, c.resources)
	}
	if c.plan.Init == config.InitSystemd {
		return nil // it has the cgroups to itself: the units say the limits
	}
	return c.components.limitV2(state.CgroupPaths[""], c.init.pid)
}

// limitV1 uses the v1 controllers memory and cpu.
func (s *componentSet) limitV1(paths map[string]string, have *specs.LinuxResources) error {
	for _, c := range s.list {
		if c.Memory > 0 {
			dir, err := c.join(paths["memory"], "memory")
			if err != nil {
				return err
			}
			limit := strconv.FormatInt(c.Memory, 10)
			if err := set(dir, "memory.limit_in_bytes", limit); err != nil {
				return err
			}
			// With swap, where the kernel accounts it.
			if err := set(dir, "memory.memsw.limit_in_bytes", limit); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if c.CPU > 0 {
			dir, err := c.join(paths["cpu"], "cpu")
			if err != nil {
				return err
			}
			if err := setQuota(dir, c.CPU, have); err != nil {
				return err
			}
			c.cpuDir = dir
		}
	}
	return nil
}

// limitV2 makes room below the container's cgroup: one with controllers for
// its children has no processes of its own (cgroup-v2, No Internal Process
// Constraint). Pid 1 has not started anything yet.
func (s *componentSet) limitV2(dir string, pid int) error {
	leaf := filepath.Join(dir, mainCgroup)
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := set(leaf, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		return err
	}
	if err := set(dir, "cgroup.subtree_control", "+memory +cpu"); err != nil {
		return fmt.Errorf("limits of components: %w", err)
	}
	for _, c := range s.list {
		if c.Memory == 0 && c.CPU == 0 {
			continue
		}
		own, err := c.join(dir, "")
		if err != nil {
			return err
		}
		if c.Memory > 0 {
			if err := set(own, "memory.max", strconv.FormatInt(c.Memory, 10)); err != nil {
				return err
			}
			if err := set(own, "memory.swap.max", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if c.CPU > 0 {
			if err := set(own, "cpu.max", fmt.Sprintf("%d %d", c.CPU*cpuPeriod/100, cpuPeriod)); err != nil {
				return err
			}
		}
	}
	return nil
}

// join makes the cgroup of a component and keeps the file that puts processes
// in it.
func (c *component) join(parent, controller string) (string, error) {
	if parent == "" {
		return "", fmt.Errorf("component %s: the host has no cgroup controller %s, which its limit needs", c.Name, controller)
	}
	dir := filepath.Join(parent, "rich-"+c.Name)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) && len(c.limits) > 0 {
		return dir, nil // the controllers share a hierarchy
	} else if err != nil {
		return "", err
	}
	procs, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	c.limits = append(c.limits, procs)
	return dir, nil
}

func set(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

// setQuota limits a v1 cgroup to hundredths of a processor, but not to more
// than the container has, which the kernel refuses.
func setQuota(dir string, hundredths int64, have *specs.LinuxResources) error {
	if err := set(dir, "cpu.cfs_period_us", strconv.Itoa(cpuPeriod)); err != nil {
		return err
	}
	return set(dir, "cpu.cfs_quota_us", strconv.FormatInt(quota(hundredths, have), 10))
}

func quota(hundredths int64, have *specs.LinuxResources) int64 {
	want := hundredths * cpuPeriod / 100
	if have != nil && have.CPU != nil && have.CPU.Quota != nil && *have.CPU.Quota > 0 {
		period := uint64(cpuPeriod) // the kernel's default is the same
		if have.CPU.Period != nil && *have.CPU.Period > 0 {
			period = *have.CPU.Period
		}
		want = min(want, *have.CPU.Quota*cpuPeriod/int64(period))
	}
	return max(want, minQuota)
}

// fit adapts the v1 limits to a change of the container's: before it they
// must fit both, after it the new ones.
func (s *componentSet) fit(have ...*specs.LinuxResources) error {
	if s == nil {
		return nil
	}
	for _, c := range s.list {
		if c.cpuDir == "" {
			continue
		}
		hundredths := c.CPU
		for _, h := range have {
			hundredths = min(hundredths, max(1, quota(hundredths, h)*100/cpuPeriod))
		}
		if err := setQuota(c.cpuDir, hundredths, have[0]); err != nil {
			return err
		}
	}
	return nil
}

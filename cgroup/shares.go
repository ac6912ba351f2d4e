package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// cpuPeriod is the period of CPU limits in µs; the quota of a hundredth
	// of a processor is a hundredth of it.
	cpuPeriod = 100000
	// minQuota is the kernel's least quota in µs.
	minQuota = 1000
	// mainCgroup holds all processes but those with limits of their own, where
	// a cgroup with processes cannot have children with limits.
	mainCgroup = "rich-main"
)

// Share is what a component may use of what its container has, in a cgroup
// below the container's.
type Share struct {
	Name   string // of the component
	Memory int64  // bytes, 0 for no limit
	CPU    int64  // hundredths of a processor, 0 for no limit

	procs []*os.File // puts processes there
	cpu   string     // the v1 cgroup for the controller cpu, if it has one
}

// Shares are those of a container's components. nil is none.
type Shares []*Share

// Divide makes the cgroups of components below those of a container with the
// limits have, whose pid 1 has not started anything yet. On v2 it makes none if
// the init has the cgroup to itself.
func Divide(paths map[string]string, owned bool, pid int, have *specs.LinuxResources, list []Share) (_ Shares, err error) {
	if Unified() && owned {
		return nil, nil
	}
	s := make(Shares, len(list))
	for i := range list {
		s[i] = &list[i]
	}
	if Unified() {
		err = s.limitV2(paths[""], pid)
	} else {
		err = s.limitV1(paths, have)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Files put a process into the cgroups of a component; none if it has none.
func (s Shares) Files(name string) []*os.File {
	for _, c := range s {
		if c.Name == name {
			return c.procs
		}
	}
	return nil
}

// Close closes these files.
func (s Shares) Close() {
	for _, c := range s {
		for _, f := range c.procs {
			f.Close()
		}
	}
}

// limitV1 uses the v1 controllers memory and cpu.
func (s Shares) limitV1(paths map[string]string, have *specs.LinuxResources) error {
	for _, c := range s {
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
			c.cpu = dir
		}
	}
	return nil
}

// limitV2 makes room below the container's cgroup: one with controllers for
// its children has no processes of its own (cgroup-v2, No Internal Process
// Constraint). Pid 1 has not started anything yet.
func (s Shares) limitV2(dir string, pid int) error {
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
	for _, c := range s {
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
func (c *Share) join(parent, controller string) (string, error) {
	if parent == "" {
		return "", fmt.Errorf("component %s: the host has no cgroup controller %s, which its limit needs", c.Name, controller)
	}
	dir := filepath.Join(parent, "rich-"+c.Name)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) && len(c.procs) > 0 {
		return dir, nil // the controllers share a hierarchy
	} else if err != nil {
		return "", err
	}
	procs, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	c.procs = append(c.procs, procs)
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

// Fit adapts the v1 limits to a change of the container's: before it they
// must fit both, after it the new ones.
func (s Shares) Fit(have ...*specs.LinuxResources) error {
	for _, c := range s {
		if c.cpu == "" {
			continue
		}
		hundredths := c.CPU
		for _, h := range have {
			hundredths = min(hundredths, max(1, quota(hundredths, h)*100/cpuPeriod))
		}
		if err := setQuota(c.cpu, hundredths, have[0]); err != nil {
			return err
		}
	}
	return nil
}

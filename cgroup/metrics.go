package cgroup

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	ocicgroups "github.com/opencontainers/cgroups"
)

// Metrics reads the resource usage of a cgroup, as the metrics of
// containerd's cgroups package, v1 or v2.
type Metrics func() (any, error)

// NewMetrics finds the cgroup that has the limits of a container: its fence, if
// it has one, or that of its pid 1, whose directories are known where it has
// some of version 1.
func NewMetrics(f *Fence, pid int, v1 map[string]string) (Metrics, error) {
	if Unified() {
		var at string
		if f != nil {
			at = f.outer()
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
	cg, err := cgroupV1(v1)
	if err != nil {
		return nil, err
	}
	return func() (any, error) { return cg.Stat(cgroup1.IgnoreNotExist) }, nil
}

// hierarchies are those of version 1. They are looked up once: that reads all
// mounts of the host, of which each container has some.
var hierarchies = sync.OnceValues(cgroup1.Default)

// cgroupV1 loads the cgroups of version 1 whose directories are given by
// controller, as libcontainer does it. The cgroups package would find those of
// a process itself, by reading all mounts of the host for each controller.
func cgroupV1(dirs map[string]string) (cgroup1.Cgroup, error) {
	cg, err := cgroup1.Load(func(name cgroup1.Name) (string, error) {
		dir, ok := dirs[string(name)]
		if !ok {
			return "", cgroup1.ErrControllerNotActive
		}
		mount, err := ocicgroups.FindCgroupMountpoint("", string(name))
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(mount, dir)
		return filepath.Join("/", rel), err
	}, cgroup1.WithHierarchy(hierarchies))
	if err != nil {
		return nil, fmt.Errorf("load cgroup: %w", err)
	}
	return cg, nil
}

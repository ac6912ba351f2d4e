package cgroup

import (
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/cgroups"

	"containerd-shim-rich/initmode"
)

// Unified reports whether the host has cgroup v2 only.
func Unified() bool { return cgroups.IsCgroup2UnifiedMode() }

// Layout is how the host has its cgroups.
func Layout() initmode.CgroupLayout {
	switch {
	case Unified():
		return initmode.CgroupUnified
	case cgroups.IsCgroup2HybridMode():
		return initmode.CgroupHybrid
	}
	return initmode.CgroupLegacy
}

// Join puts a process into a cgroup that is there, in all hierarchies.
func Join(path string, pid int) error {
	if Unified() {
		cg, err := cgroup2.Load(path)
		if err != nil {
			return err
		}
		return cg.AddProc(uint64(pid))
	}
	cg, err := cgroup1.Load(cgroup1.StaticPath(path))
	if err != nil {
		return err
	}
	return cg.AddProc(uint64(pid))
}

// Whole is the one of a container's cgroups, by controller, in which all
// its processes are, with those below it: that of the v1 hierarchy which
// libcontainer needs, or that of v2.
func Whole(dirs map[string]string) string {
	if dir := dirs["devices"]; dir != "" {
		return dir
	}
	return dirs[""]
}

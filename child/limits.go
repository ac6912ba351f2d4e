package child

import (
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/launch"
)

// rlimits is the number of resource limits of the kernel (getrlimit(2)).
const rlimits = unix.RLIMIT_RTTIME + 1

// InheritedLimits are the limits of a process that the shim starts and that
// sets none itself.
func InheritedLimits() ([]launch.Rlimit, error) {
	out := make([]launch.Rlimit, 0, rlimits)
	for resource := range rlimits {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			return nil, fmt.Errorf("get rlimit %d: %w", resource, err)
		}
		switch resource {
		case unix.RLIMIT_NOFILE:
			l.Cur = softNofile()
		case unix.RLIMIT_MEMLOCK:
			l = memlock()
		}
		out = append(out, launch.Rlimit{Resource: resource, Soft: l.Cur, Hard: l.Max})
	}
	return out, nil
}

// memlock is the limit of locked memory that this process was started with.
func memlock() unix.Rlimit {
	return unix.Rlimit{Cur: softMemlock(), Max: hardMemlock()}
}

// raisesMemlock tells whether libcontainer raises the limit of this process: on
// cgroup v2, if it has CAP_SYS_RESOURCE. Without that the limit of a process in
// a user namespace cannot be set either (prlimit(2)).
var raisesMemlock = sync.OnceValue(func() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&header, &sets[0])
	return cgroup.Unified() && err == nil && sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
})

// withMemlock adds that limit to those of a process, if they do not name it:
// the process would have what this one has at that moment.
func withMemlock(limits []configs.Rlimit) []configs.Rlimit {
	if !raisesMemlock() || slices.ContainsFunc(limits, func(l configs.Rlimit) bool { return l.Type == unix.RLIMIT_MEMLOCK }) {
		return limits
	}
	had := memlock()
	return append(limits, configs.Rlimit{Type: unix.RLIMIT_MEMLOCK, Soft: had.Cur, Hard: had.Max})
}

// memlockRaised is what libcontainer makes of the limit.
var memlockRaised = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}

// keepMemlock is called before libcontainer may raise the limit, and lower
// when it does not need that any more. The limit becomes what it was, for the
// programs of the host that this process starts: hooks, and what takes a
// container's output. While another start goes on it stays: libcontainer may be
// about to need it.
func (c *Children) keepMemlock() (lower func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raisers++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raisers--
		var now unix.Rlimit
		if c.raisers > 0 || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now) != nil || now != memlockRaised {
			return
		}
		had := memlock()
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &had) // it is not higher
	}
}

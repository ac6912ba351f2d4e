package shim

/*
#include <sys/resource.h>

static struct rlimit rich_nofile, rich_memlock;

// The Go runtime raises the soft limit of open files before any Go code of
// ours runs, and gives children the old one back. libcontainer raises both
// limits of locked memory, for the kernels before 5.11 that count there the
// rules for devices of cgroup v2, and children get that.
__attribute__((constructor)) static void rich_remember_limits(void)
{
	getrlimit(RLIMIT_NOFILE, &rich_nofile);
	getrlimit(RLIMIT_MEMLOCK, &rich_memlock);
}

static unsigned long long rich_soft_nofile(void)
{
	return rich_nofile.rlim_cur;
}

static unsigned long long rich_soft_memlock(void)
{
	return rich_memlock.rlim_cur;
}

static unsigned long long rich_hard_memlock(void)
{
	return rich_memlock.rlim_max;
}
*/
import "C"

import (
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// rlimits is the number of resource limits of the kernel (getrlimit(2)).
const rlimits = unix.RLIMIT_RTTIME + 1

// inheritedLimits are the limits of a process that the shim starts and that
// sets none itself.
func inheritedLimits() ([]launch.Rlimit, error) {
	out := make([]launch.Rlimit, 0, rlimits)
	for resource := range rlimits {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			return nil, fmt.Errorf("get rlimit %d: %w", resource, err)
		}
		switch resource {
		case unix.RLIMIT_NOFILE:
			l.Cur = uint64(C.rich_soft_nofile())
		case unix.RLIMIT_MEMLOCK:
			l = memlock()
		}
		out = append(out, launch.Rlimit{Resource: resource, Soft: l.Cur, Hard: l.Max})
	}
	return out, nil
}

// memlock is the limit of locked memory that this process was started with.
func memlock() unix.Rlimit {
	return unix.Rlimit{Cur: uint64(C.rich_soft_memlock()), Max: uint64(C.rich_hard_memlock())}
}

// raisesMemlock tells whether libcontainer raises the limit of this process: on
// cgroup v2, if it has CAP_SYS_RESOURCE. Without that the limit of a process in
// a user namespace cannot be set either (prlimit(2)).
var raisesMemlock = sync.OnceValue(func() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&header, &sets[0])
	return cgroups.IsCgroup2UnifiedMode() && err == nil && sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
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

// raisers are the starts of containers during which the limit must not be
// lowered: libcontainer may be about to need it.
var raisers struct {
	mu sync.Mutex
	n  int
}

// keepMemlock is called before libcontainer may raise the limit, and lower
// when it does not need that any more. The limit becomes what it was, for the
// programs of the host that this process starts: hooks, and what takes a
// container's output.
func keepMemlock() (lower func()) {
	raisers.mu.Lock()
	defer raisers.mu.Unlock()
	raisers.n++
	return func() {
		raisers.mu.Lock()
		defer raisers.mu.Unlock()
		raisers.n--
		var now unix.Rlimit
		if raisers.n > 0 || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now) != nil || now != memlockRaised {
			return
		}
		had := memlock()
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &had) // it is not higher
	}
}

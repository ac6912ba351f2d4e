package shim

/*
#include <sys/resource.h>

static struct rlimit rich_nofile;

// The Go runtime raises the soft limit of open files before any Go code of
// ours runs, and gives children the old one back.
__attribute__((constructor)) static void rich_remember_nofile(void)
{
	getrlimit(RLIMIT_NOFILE, &rich_nofile);
}

static unsigned long long rich_soft_nofile(void)
{
	return rich_nofile.rlim_cur;
}
*/
import "C"

import (
	"fmt"

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
		if resource == unix.RLIMIT_NOFILE {
			l.Cur = uint64(C.rich_soft_nofile())
		}
		out = append(out, launch.Rlimit{Resource: resource, Soft: l.Cur, Hard: l.Max})
	}
	return out, nil
}

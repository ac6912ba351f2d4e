package child

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

// softNofile is the soft limit of open files that this process was started
// with.
func softNofile() uint64 { return uint64(C.rich_soft_nofile()) }

// softMemlock and hardMemlock are the limits of locked memory that it was
// started with, in bytes.
func softMemlock() uint64 { return uint64(C.rich_soft_memlock()) }
func hardMemlock() uint64 { return uint64(C.rich_hard_memlock()) }

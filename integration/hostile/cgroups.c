/* Attacks by what can be written in the container's own cgroups. */
#include "hostile.h"

#include <sys/mount.h>

static const char *const places[] = {
	"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids",
	"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/devices", "/sys/fs/cgroup/systemd",
};

/* open_cgroup opens a mount of cgroups that we may write to, or can make so: it has nothing but the container's. */
static int open_cgroup(const char *place)
{
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -1;
	if (faccessat(dir, "cgroup.procs", F_OK, 0)) {
		close(dir);
		errno = ENOENT;
		return -1;
	}
	for (int again = 0; again < 2; again++) {
		if (!mkdirat(dir, "hostile-try", 0755)) {
			unlinkat(dir, "hostile-try", AT_REMOVEDIR);
			return dir;
		}
		int error = errno;
		if (again || mount(NULL, place, NULL, MS_REMOUNT | MS_BIND, NULL)) {
			close(dir);
			errno = error;
			return -1;
		}
	}
	return -1;
}

static int cgroups(int *dirs)
{
	int n = 0, error = ENOENT;
	for (size_t i = 0; i < COUNT(places); i++) {
		int dir = open_cgroup(places[i]);
		if (dir >= 0)
			dirs[n++] = dir;
		else if (errno != ENOENT)
			error = errno;
	}
	errno = error;
	return n;
}

static const char *has_cgroup(void)
{
	int dirs[COUNT(places)];
	int n = cgroups(dirs);
	const char *reason = n ? NULL : why("no cgroup can be written to: %s", strerror(errno));
	for (int i = 0; i < n; i++)
		close(dirs[i]);
	return reason;
}

static int write_at(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

static void stay(int dir)
{
	write_at(dir, "cgroup.procs", "0");
	for (;;)
		pause();
}

/* No path is long enough for the name of the last one. */
static void cg_deep(void)
{
	int dirs[COUNT(places)], n = cgroups(dirs), made = 0;
	char name[101];
	for (int i = 0; i < n && i < 4; i++) {
		int dir = dirs[i];
		for (int depth = 0; depth < 60; depth++) {
			memset(name, 'a' + depth % 26, sizeof name - 1);
			name[sizeof name - 1] = 0;
			if (mkdirat(dir, name, 0700))
				break;
			int next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (next < 0)
				break;
			dir = next;
			made++;
		}
		worker(stay, dir);
	}
	note("made %d", made);
}

static void cg_many(void)
{
	int dirs[COUNT(places)], n = cgroups(dirs), made = 0;
	char name[201];
	for (int k = 0; k < 2500 && going(); k++) {
		memset(name, 'n', sizeof name - 1);
		name[sizeof name - 1] = 0;
		name[snprintf(name, 20, "%d", k)] = 'x';
		if (mkdirat(dirs[k % n], name, 0700))
			break;
		made++;
	}
	note("made %d", made);
}

/* Processes go from one group to another, and groups come and go and become threaded. */
static void cg_move(void)
{
	int dirs[COUNT(places)], n = cgroups(dirs), groups[40];
	char text[32];
	for (size_t i = 0; i < COUNT(groups); i++) {
		snprintf(text, sizeof text, "move-%zu", i);
		mkdirat(dirs[i % (size_t)n], text, 0700);
		groups[i] = openat(dirs[i % (size_t)n], text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (i % 5 == 0)
			write_at(groups[i], "cgroup.type", "threaded");
	}
	pid_t pids[40];
	for (size_t i = 0; i < COUNT(pids); i++)
		pids[i] = worker(stay, groups[i]);
	srandom(1);
	while (going()) {
		snprintf(text, sizeof text, "%d", pids[random() % (long)COUNT(pids)]);
		write_at(groups[random() % (long)COUNT(groups)], "cgroup.procs", text);
		snprintf(text, sizeof text, "come-%ld", random() % 10);
		if (mkdirat(dirs[0], text, 0700))
			unlinkat(dirs[0], text, AT_REMOVEDIR);
	}
}

/* The container freezes: its groups, itself. Nothing follows the last of it, in cgroup v1 not even death. */
static void cg_freeze(void)
{
	int dirs[COUNT(places)], n = cgroups(dirs);
	for (int i = 0; i < n; i++) {
		mkdirat(dirs[i], "ice", 0700);
		int ice = openat(dirs[i], "ice", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		for (int k = 0; k < 5; k++)
			worker(stay, ice);
		pause_ms(50);
		write_at(ice, "cgroup.freeze", "1");
		write_at(ice, "freezer.state", "FROZEN");
	}
	note("done");
	for (int i = 0; i < n; i++) {
		write_at(dirs[i], "freezer.state", "FROZEN");
		write_at(dirs[i], "cgroup.freeze", "1");
	}
	for (int i = 0; i < n; i++) {
		int ice = openat(dirs[i], "ice", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		write_at(ice, "cgroup.procs", "0");
	}
}

/* Limits that the container gives itself: with oom_kill_disable of v1 a process waits for memory instead of dying. */
static void starve(int arg)
{
	for (int i = 0; i < 300; i++) {
		char *p = malloc(1 << 20);
		if (p)
			memset(p, arg + 1, 1 << 20);
	}
	pause();
}

static void cg_limits(void)
{
	int dirs[COUNT(places)], n = cgroups(dirs);
	note("done"); /* it may well be the last that can be said */
	for (int i = 0; i < n; i++) {
		write_at(dirs[i], "cgroup.subtree_control", "+memory");
		write_at(dirs[i], "cgroup.subtree_control", "+pids");
		mkdirat(dirs[i], "poor", 0700);
		int poor = openat(dirs[i], "poor", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		write_at(poor, "memory.limit_in_bytes", "4194304");
		write_at(poor, "memory.oom_control", "1");
		write_at(dirs[i], "memory.oom_control", "1");
		write_at(poor, "memory.high", "4096");
		write_at(poor, "pids.max", "5");
		write_at(poor, "cpu.cfs_quota_us", "1000");
		for (int k = 0; k < 3; k++) {
			pid_t pid = worker(starve, k);
			char text[32];
			snprintf(text, sizeof text, "%d", pid);
			write_at(poor, "cgroup.procs", text);
		}
	}
	pause_ms(300);
}

const struct attack cgroup_attacks[] = {
	{"cg-deep", has_cgroup, cg_deep},
	{"cg-many", has_cgroup, cg_many},
	{"cg-move", has_cgroup, cg_move},
	{"cg-freeze", has_cgroup, cg_freeze},
	{"cg-limits", has_cgroup, cg_limits},
	{0},
};

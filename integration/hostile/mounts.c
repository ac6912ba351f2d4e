/* Attacks on the shim's folder in the container. */
#include "hostile.h"

#include <dirent.h>
#include <sys/mount.h>

#define OURS "/run/rich"

static const char *can_fill(void)
{
	if (access(OURS, F_OK))
		return why(OURS ": %s", strerror(errno));
	for (int again = 0; again < 2; again++) {
		int fd = open(OURS "/hostile-try", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd >= 0) {
			close(fd);
			unlink(OURS "/hostile-try");
			return NULL;
		}
		int error = errno;
		if (again || (mount(NULL, OURS, NULL, MS_REMOUNT | MS_BIND, NULL) && mount(NULL, OURS, NULL, MS_REMOUNT, NULL)))
			return why("a file in " OURS ": %s", strerror(error));
	}
	return NULL;
}

static void run_fill(void)
{
	static char bytes[64 << 10];
	char name[64];
	long written = 0;
	int files = 0;
	for (; files < 5000 && going(); files++) {
		snprintf(name, sizeof name, OURS "/fill-%d", files);
		int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			break;
		while (written < 48 << 20 && written < (long)(files + 1) * (1 << 20)) {
			ssize_t n = write(fd, bytes, sizeof bytes);
			if (n <= 0)
				break;
			written += n;
		}
		close(fd);
	}
	note("%d files, %ld bytes", files, written);
}

static const char *can_mount(void)
{
	mkdir("/report/try", 0777);
	if (mount("hostile", "/report/try", "tmpfs", 0, "size=4096"))
		return why("mount: %s", strerror(errno));
	umount2("/report/try", MNT_DETACH);
	return access(OURS, F_OK) ? why(OURS ": %s", strerror(errno)) : NULL;
}

/* Over, under and in place of all that is there. */
static void run_mount(void)
{
	char path[300];
	const char *const shared[] = {"/", "/run", OURS, "/sys/fs/cgroup", "/dev"};
	for (size_t i = 0; i < COUNT(shared); i++)
		mount(NULL, shared[i], NULL, MS_SHARED | MS_REC, NULL);
	for (int round = 0; round < 20 && going(); round++) {
		DIR *dir = opendir(OURS);
		for (struct dirent *entry; dir && (entry = readdir(dir));) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof path, OURS "/%s", entry->d_name);
			switch (round % 4) {
			case 0: mount("/proc/self/exe", path, NULL, MS_BIND, NULL); break;
			case 1: mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL); break;
			case 2: unlink(path); symlink("/etc/passwd", path); break;
			case 3: umount2(path, MNT_DETACH); break;
			}
		}
		if (dir)
			closedir(dir);
		mount(NULL, OURS, NULL, MS_REMOUNT | MS_BIND, NULL);
		mount("hostile", OURS, "tmpfs", 0, "size=65536");
		mount(OURS, "/run", NULL, MS_BIND | MS_REC, NULL);
		mount("/", OURS, NULL, MS_BIND | MS_REC, NULL);
		if (round % 5 == 4)
			umount2(OURS, MNT_DETACH);
	}
}

/* A lease lets whoever opens the file to write wait, up to 45 s (fcntl(2), /proc/sys/fs/lease-break-time). */
static int lease(const char *path)
{
	struct stat info;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &info) && S_ISREG(info.st_mode) && !fcntl(fd, F_SETLEASE, F_RDLCK))
		return 1;
	if (fd >= 0)
		close(fd);
	return 0;
}

static int leases(char *last, size_t size)
{
	static const char *const dirs[] = {OURS, OURS "/units", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/etc"};
	char path[300];
	int n = 0;
	signal(SIGIO, SIG_IGN);
	for (size_t i = 0; i < COUNT(dirs); i++) {
		DIR *dir = opendir(dirs[i]);
		for (struct dirent *entry; dir && n < 500 && (entry = readdir(dir));) {
			snprintf(path, sizeof path, "%s/%s", dirs[i], entry->d_name);
			if (lease(path)) {
				n++;
				snprintf(last, size, "%s", path);
			}
		}
		if (dir)
			closedir(dir);
	}
	return n;
}

static const char *can_lease(void)
{
	/* Given back at the end of this process. */
	char last[300];
	return leases(last, sizeof last) ? NULL : "no lease on a file of ours";
}

static void run_lease(void)
{
	char last[300];
	int n = leases(last, sizeof last);
	note("%d leases, the last on %.200s", n, last);
}

const struct attack mount_attacks[] = {
	{"run-fill", can_fill, run_fill},
	{"run-mount", can_mount, run_mount},
	{"run-lease", can_lease, run_lease},
	{0},
};

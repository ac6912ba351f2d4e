// The first move of a process to a cgroup waits for a grace period of RCU
// (shim/grace.go). A shim is started to move one, and the wait goes on while
// the Go runtime starts.

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "grace.h"

// Moves a process to the cgroup where it and this one are, in one hierarchy:
// the v1 one that libcontainer needs, or that of v2. Where they are mounted
// elsewhere nothing is lost but time.
static void *move(void *pid)
{
	static const char v1[] = ":devices:", v2[] = "0::";
	char line[PATH_MAX], own[PATH_MAX] = "", file[PATH_MAX + 64], *at;
	const char *root = "/sys/fs/cgroup";
	FILE *f;
	int fd;

	f = fopen("/proc/self/cgroup", "re");
	if (!f)
		return NULL;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		at = strstr(line, v1);
		if (at) {
			root = "/sys/fs/cgroup/devices";
			strcpy(own, at + strlen(v1));
			break;
		}
		if (strncmp(line, v2, strlen(v2)) == 0)
			strcpy(own, line + strlen(v2));
	}
	fclose(f);
	if (snprintf(file, sizeof(file), "%s%s/cgroup.procs", root, own) >= (int)sizeof(file))
		return NULL;
	fd = open(file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	dprintf(fd, "%d", (int)(intptr_t)pid);
	close(fd);
	return NULL;
}

void grace_begin(pid_t pid)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;

	if (pthread_attr_init(&attr) != 0)
		return;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	// The runtime's signals are for its own threads.
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&thread, &attr, move, (void *)(intptr_t)pid);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
}

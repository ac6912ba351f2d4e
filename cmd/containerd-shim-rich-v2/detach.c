// The shim leaves the process that containerd waits for before the Go runtime
// starts, where fork(2) is still possible: otherwise each shim would cost the
// start of two Go programs, one that only starts the other.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detach.h"
#include "grace.h"

// What tells the waiting process that the shim is there.
static int ready = -1;
// The action on the command line, which is over when the shim serves.
static char *action;

static void fail(const char *what)
{
	fprintf(stderr, "containerd-shim-rich-v2: %s: %s\n", what, strerror(errno));
	_exit(1);
}

// The process that containerd has started ends with the child, and with its
// status, or as soon as that is ready.
static void follow(pid_t child, int from)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(from, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("wait for the shim");
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

// glibc gives main's arguments to constructors. containerd puts flags first and
// the action last; a hook's own arguments may end with that word as well.
__attribute__((constructor)) static void detach(int argc, char **argv)
{
	int ends[2], null;
	pid_t parent, child;

	if (argc < 3 || argv[1][0] != '-' || strcmp(argv[argc - 1], "start") != 0)
		return;
	// The shim library takes descriptor 3 for the listener; the Go runtime
	// would otherwise have it for itself.
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || (null != DETACH_LISTENER && dup3(null, DETACH_LISTENER, O_CLOEXEC) < 0))
		fail("open /dev/null");
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail("pipe");
	parent = getpid();
	child = fork();
	if (child < 0)
		fail("fork");
	if (child > 0) {
		close(ends[1]);
		follow(child, ends[0]);
	}
	close(ends[0]);
	ready = ends[1];
	action = argv[argc - 1];
	// Whoever gives the start up gives the shim up.
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || setpgid(0, 0) < 0)
		fail("detach");
	if (getppid() != parent)
		_exit(1);
	grace_begin(parent);
}

int detach_done(void)
{
	if (ready < 0) {
		errno = EBADF;
		return -1;
	}
	if (prctl(PR_SET_PDEATHSIG, 0) < 0)
		return -1;
	memset(action, 0, strlen(action));
	if (write(ready, "", 1) != 1)
		return -1;
	return close(ready);
}

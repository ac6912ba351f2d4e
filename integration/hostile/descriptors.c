/* Attacks by descriptors that are passed to the shim. */
#include "hostile.h"

#include <arpa/inet.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#define LINGER 600 /* seconds: far more than any limit of the test, and still an end */

/* lingering makes a connection that is full, to a peer that never reads, and whose close(2) therefore waits. The peer is
 * not to go with the container, so it is passed along. */
int lingering(int pair[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int least = 1;
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
	int ok = !bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 1) &&
		!getsockname(listener, (struct sockaddr *)&address, &size);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
	ok = ok && !connect(pair[0], (struct sockaddr *)&address, sizeof address);
	pair[1] = ok ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
	close(listener);
	if (pair[1] < 0)
		return -1;
	struct linger linger = {1, LINGER};
	if (setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger))
		return -1;
	static char bytes[64 << 10];
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 1000 && write(pair[0], bytes, sizeof bytes) > 0; i++)
		;
	fcntl(pair[0], F_SETFL, 0);
	return 0;
}

static const char *can_linger(void)
{
	int pair[2];
	if (lingering(pair))
		return why("TCP over loopback: %s", strerror(errno));
	struct linger none = {0, 0};
	setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &none, sizeof none);
	close(pair[0]);
	close(pair[1]);
	return NULL;
}

static const char *linger_over_socket(void)
{
	const char *reason = has_socket();
	return reason ? reason : can_linger();
}

#define PAIRS 10

static void close_all(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		close(fds[i]);
}

/* pass_lingering passes lingering sockets and their peers, in both orders, so that some of them go before their peers: as
 * often as that, as any signal ends one wait. Our own copies are to go first, and are a child's: its close waits if they are
 * the last after all. It tells whether they were taken. */
static int pass_lingering(int s, const void *data, size_t size)
{
	pid_t child = fork();
	if (child == 0) {
		int fds[2 * PAIRS], n = 0, pair[2];
		for (int i = 0; i < PAIRS && !lingering(pair); i++) {
			fds[n++] = pair[i % 2];
			fds[n++] = pair[!(i % 2)];
		}
		if (n == 0 || pass(s, data, size, fds, n) < 0)
			_exit(1); /* nothing lingers at the end of a process */
		close(s);
		close_all(fds, n);
		_exit(0);
	}
	for (int i = 0; i < 30; i++) {
		int status;
		if (waitpid(child, &status, WNOHANG) == child)
			return status == 0;
		pause_ms(5);
	}
	return 1;
}

/* With every message, over connections that are served. */
static void fd_linger(void)
{
	static struct frame f;
	static const char *const role[] = {"app", "event", "command", "x"};
	int passed = 0;
	for (unsigned i = 0; i < 60 && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(10);
			continue;
		}
		hello(&f, role[i % 4]);
		if (i % 2)
			passed += pass_lingering(s, f.data, f.size);
		else
			send_all(s, f.data, f.size);
		if (lie(&f, i % 22))
			passed += pass_lingering(s, f.data, f.size);
		if (i % 3 == 0)
			close(s);
	}
	note("passed %d", passed);
}

/* Over connections that wait to be accepted while the others are taken: then these are given back. */
static void fd_backlog(void)
{
	int taken[64], waiting[16], passed = 0;
	size_t n = 0, w = 0;
	while (n < COUNT(taken) && going() && (taken[n] = dial()) >= 0)
		n++;
	pause_ms(100);
	for (; w < COUNT(waiting) && (waiting[w] = dial()) >= 0; w++)
		passed += pass_lingering(waiting[w], "x", 1);
	/* They are the last ones also where all of them went into the queue. */
	for (size_t i = n > 16 ? n - 16 : 0; i < n; i++)
		passed += pass_lingering(taken[i], "x", 1);
	note("passed %d", passed);
	for (size_t i = 0; i < n && i < 8; i++)
		close(taken[i]);
}

/* others makes descriptors of every other kind; the ones that cannot be had are left out. */
static int others(int s, int *fds)
{
	int pipes[2], pairs[2], n = 0;
	char nothing[4096] = {0};
	int made[] = {
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY),
		(int)syscall(SYS_pidfd_open, getpid(), 0),
		memfd_create("hostile", MFD_CLOEXEC),
		open("/", O_PATH | O_CLOEXEC),
		open("/proc/self/exe", O_PATH | O_CLOEXEC),
		open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC),
		open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC),
		open("/dev/zero", O_RDWR | O_CLOEXEC),
		open("/proc/self/mem", O_RDWR | O_CLOEXEC),
		open("/run/rich", O_RDONLY | O_CLOEXEC),
		dup(s), /* over itself */
		dial(), /* another one to the same shim */
	};
	for (size_t i = 0; i < COUNT(made); i++)
		if (made[i] >= 0)
			fds[n++] = made[i];
	if (!pipe2(pipes, O_CLOEXEC | O_NONBLOCK)) {
		while (write(pipes[1], nothing, sizeof nothing) > 0)
			;
		fds[n++] = pipes[0];
		fds[n++] = pipes[1];
	}
	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs)) {
		/* Each holds the other: only the kernel's collector ends that. */
		pass(pairs[0], "x", 1, &pairs[0], 1);
		pass(pairs[1], "x", 1, &pairs[1], 1);
		fds[n++] = pairs[0];
		fds[n++] = pairs[1];
	}
	return n;
}

/* One of each with every message, also with the one that carries a descriptor (CONSOLE). */
static void fd_kinds(void)
{
	static struct frame f;
	int passed = 0;
	for (unsigned i = 0; i < 400 && going(); i++) {
		int fds[24], s = dial();
		if (s < 0) {
			pause_ms(10);
			continue;
		}
		hello(&f, i % 2 ? "app" : "event");
		send_all(s, f.data, f.size);
		int n = others(s, fds);
		if (!lie(&f, i % 22))
			hello(&f, "app");
		for (int k = 0; k < n; k++)
			passed += pass(s, f.data, f.size, &fds[k], 1) > 0;
		passed += pass(s, f.data, f.size, fds, n) > 0;
		close_all(fds, n);
		if (i % 4)
			close(s);
	}
	note("passed %d", passed);
}

/* As many at once as the kernel lets pass, each time, and with single bytes of a message. */
static void fd_many(void)
{
	static struct frame f;
	int fds[253], passed = 0;
	for (size_t i = 0; i < COUNT(fds); i++)
		fds[i] = i % 2 ? open("/dev/null", O_RDWR | O_CLOEXEC) : memfd_create("x", MFD_CLOEXEC);
	for (unsigned i = 0; i < 400 && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(10);
			continue;
		}
		hello(&f, i % 2 ? "app" : "event");
		for (size_t at = 0; at < f.size; at++)
			passed += pass(s, f.data + at, 1, fds, COUNT(fds)) > 0;
		begin(&f, i % 3 ? LIMITS : CONSOLE);
		end(&f);
		for (int k = 0; k < 20; k++)
			passed += pass(s, f.data, f.size, fds, COUNT(fds)) > 0;
		if (i % 4)
			close(s);
	}
	note("passed %d", passed);
}

static const char *fuse_over_socket(void)
{
	const char *reason = has_socket();
	return reason ? reason : has_fuse();
}

static void fd_fuse(void)
{
	static struct frame f;
	int dev, file = fuse_file(&dev), passed = 0;
	close(dev);
	for (unsigned i = 0; i < 60 && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(10);
			continue;
		}
		hello(&f, i % 2 ? "app" : "event");
		passed += pass(s, f.data, f.size, &file, 1) > 0;
		if (lie(&f, i % 22))
			passed += pass(s, f.data, f.size, &file, 1) > 0;
	}
	close(file);
	fuse_stop();
	note("passed %d", passed);
}

/* The way to the daemon goes with it, so that the death of the daemon does not end the wait for it. The test ends it by the
 * number of the file system. */
static void fd_fuse_kept(void)
{
	static struct frame f;
	struct stat info;
	int fds[2], passed = 0;
	fds[0] = fuse_file(&fds[1]);
	if (fstat(fds[0], &info))
		return;
	note("fuse %u", minor(info.st_dev));
	for (unsigned i = 0; i < 8 && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(10);
			continue;
		}
		hello(&f, i % 2 ? "app" : "event");
		passed += pass(s, f.data, f.size, fds, 2) > 0;
		if (lie(&f, i % 22))
			passed += pass(s, f.data, f.size, fds, 2) > 0;
	}
	close_all(fds, 2);
	fuse_stop();
	note("passed %d", passed);
}

static const char *linger_over_notify(void)
{
	const char *reason = has_notify();
	return reason ? reason : can_linger();
}

static void fd_notify(void)
{
	int s = dial_notify(), passed = 0;
	for (int i = 0; i < 100 && going(); i++) {
		int fds[24];
		passed += pass_lingering(s, "READY=1\n", 8);
		int n = others(s, fds);
		if (pass(s, "FDSTORE=1\n", 10, fds, n) > 0)
			passed++;
		else
			pause_ms(5);
		close_all(fds, n);
	}
	note("passed %d", passed);
}

const struct attack descriptor_attacks[] = {
	{"fd-linger", linger_over_socket, fd_linger},
	{"fd-backlog", linger_over_socket, fd_backlog},
	{"fd-kinds", has_socket, fd_kinds},
	{"fd-many", has_socket, fd_many},
	{"fd-fuse", fuse_over_socket, fd_fuse},
	{"fd-fuse-kept", fuse_over_socket, fd_fuse_kept},
	{"fd-notify", linger_over_notify, fd_notify},
	{0},
};

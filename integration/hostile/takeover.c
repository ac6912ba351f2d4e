/* The attack of a process that takes the place of the launcher. */
#include "hostile.h"

#include <poll.h>

/* starts waits for START, whose descriptors it leaves to the kernel, and tells whether it came. */
static int starts(int s)
{
	unsigned char head[5];
	size_t have = 0;
	struct pollfd wait = {.fd = s, .events = POLLIN};
	while (have < sizeof head && poll(&wait, 1, 500) > 0) {
		ssize_t n = recv(s, head + have, sizeof head - have, 0);
		if (n <= 0)
			return 0;
		have += (size_t)n;
	}
	return have == sizeof head && head[4] == START;
}

static int odd(int n, int *keep)
{
	int pair[2], pipes[2];
	*keep = -1;
	switch (n % 6) {
	case 0: *keep = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC); return *keep; /* a terminal, but nobody's */
	case 1: return pipe2(pipes, O_CLOEXEC) ? -1 : (*keep = pipes[0], pipes[1]);
	case 2: return lingering(pair) ? -1 : (*keep = pair[1], pair[0]);
	case 3: return open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	case 4: return open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	default: return fuse_file(keep);
	}
}

static void pretend(int arg)
{
	static struct frame f;
	int given = 0;
	(void)arg;
	setsid();
	/* Where an init does not look for what belongs to the service. */
	write_file("/sys/fs/cgroup/cgroup.procs", "0");
	kill(getppid(), SIGUSR1);
	while (given < 6 && going()) {
		int s = dial();
		if (s < 0) {
			pause_ms(20);
			continue;
		}
		hello(&f, "app");
		send_all(s, f.data, f.size);
		if (!starts(s)) {
			close(s);
			pause_ms(20);
			continue;
		}
		int keep, fd = odd(given, &keep);
		begin(&f, CONSOLE);
		end(&f);
		if (fd >= 0)
			pass(s, f.data, f.size, &fd, 1);
		close(fd);
		begin(&f, STARTED);
		put32(&f, 1);
		end(&f);
		send_all(s, f.data, f.size);
		for (unsigned n = 8; lie(&f, n); n++)
			if (send_all(s, f.data, f.size))
				break;
		if (++given % 2)
			close(s);
	}
	note("took over %d times", given);
	note("done");
	for (;;)
		pause();
}

static void ready(int signal) { (void)signal; }

static const char *can_take_over(void)
{
	const char *reason = has_socket();
	if (reason)
		return reason;
	if (getppid() < 2 || kill(getppid(), 0))
		return "no launcher that can be killed";
	return NULL;
}

static void take_over(void)
{
	pid_t launcher = getppid();
	signal(SIGUSR1, ready);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	worker(pretend, 0);
	pause_ms(200); /* ended by the signal */
	kill(launcher, SIGKILL);
	for (;;)
		pause();
}

const struct attack takeover_attacks[] = {
	{"take-over", can_take_over, take_over},
	{0},
};

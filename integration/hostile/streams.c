/* Attacks by the command's streams and its terminal. */
#include "hostile.h"

#include <sys/ioctl.h>
#include <termios.h>

static void fill(int fd)
{
	static char bytes[64 << 10];
	memset(bytes, '\n', sizeof bytes);
	while (write(fd, bytes, sizeof bytes) > 0)
		;
}

/* Nobody reads: the test does not. */
static void out_fill(void)
{
	worker(fill, 1);
	worker(fill, 2);
	pause_ms(300);
}

/* The open file is shared with whoever else has it. */
static void flags(int fd)
{
	static const int sizes[] = {4096, 1 << 20, 65536};
	for (int i = 0; i < 20000 && going(); i++) {
		int how = i % 2 ? O_NONBLOCK : 0;
		if (i % 3 == 0)
			how |= O_ASYNC;
		if (i % 5 == 0)
			how |= O_DIRECT; /* packets, in a pipe */
		if (i % 7 == 0)
			how |= O_APPEND;
		fcntl(fd, F_SETFL, how);
		fcntl(fd, F_SETOWN, 1);
		fcntl(fd, F_SETSIG, SIGRTMIN + i % 20);
		fcntl(fd, F_SETPIPE_SZ, sizes[i % 3]);
		if (i % 100 == 0 && write(fd, "x\n", 2) < 0)
			continue;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK | O_DIRECT);
}

static void out_flags(void)
{
	/* The signals of F_SETSIG go to pid 1, and some pass them on. */
	for (int i = SIGHUP; i <= SIGRTMAX; i++)
		signal(i, SIG_IGN);
	for (int fd = 0; fd < 3; fd++)
		worker(flags, fd);
	wait_workers();
}

static void keep(int arg)
{
	setsid();
	if (arg % 2 && fork())
		_exit(0);
	for (int i = SIGHUP; i <= SIGRTMAX; i++)
		signal(i, SIG_IGN);
	for (;;) {
		pause_ms(50);
		if (write(1 + arg % 2, ".", 1) < 0)
			continue;
	}
}

/* They are held, and written to, by processes that nobody knows, after the end of the command. */
static void out_hold(void)
{
	for (int i = 0; i < 20; i++)
		worker(keep, i);
	pause_ms(100);
	note("done");
	_exit(0);
}

static const char *has_terminal(void) { return isatty(0) ? NULL : "no terminal"; }

static void size_storm(int arg)
{
	for (int i = 0; i < 200000 && going(); i++) {
		struct winsize size = {(unsigned short)i, (unsigned short)(i * arg), 0, 0};
		ioctl(0, TIOCSWINSZ, &size);
	}
}

static void mode_storm(int arg)
{
	struct termios old, mode;
	tcgetattr(0, &old);
	for (int i = 0; i < 50000 && going(); i++) {
		mode = old;
		mode.c_lflag ^= (tcflag_t)(i % 2 ? ICANON | ECHO : ISIG);
		mode.c_iflag ^= (tcflag_t)(i % 3 ? IXON : ICRNL);
		tcsetattr(0, TCSANOW, &mode);
		ioctl(0, TIOCSTI, i % 7 ? "\x13" : "\x03");
		ioctl(0, TIOCEXCL);
		ioctl(0, TIOCSETD, &(int){i % 20});
		ioctl(0, TIOCSPGRP, &(pid_t){arg});
		ioctl(0, TIOCNOTTY);
		tcflow(0, i % 2 ? TCOOFF : TCOON);
	}
	tcflow(0, TCOOFF);
}

static void reopen(int arg)
{
	static const char *const names[] = {"/dev/console", "/dev/tty", "/dev/stdout", "/proc/self/fd/0", "/dev/pts/0", "/dev/ptmx"};
	for (int i = 0; i < 20000 && going(); i++) {
		int fd = open(names[(i + arg) % (int)COUNT(names)], O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		ioctl(fd, TIOCPKT, &(int){1});
		ioctl(fd, TIOCSPTLCK, &(int){1});
		if (write(fd, "flood\n", 6) < 0)
			ioctl(fd, TCFLSH, TCIOFLUSH);
		close(fd);
	}
}

static void tty_storm(void)
{
	signal(SIGTTOU, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	worker(size_storm, 3);
	worker(mode_storm, 1);
	worker(reopen, 0);
	worker(fill, 1);
	while (going())
		pause_ms(50);
}

static const char *has_console(void)
{
	int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return why("/dev/console: %s", strerror(errno));
	close(fd);
	return NULL;
}

/* Where the init writes what it has to say. */
static void console(int arg)
{
	static char bytes[4096];
	memset(bytes, arg % 2 ? '\n' : '\x1b', sizeof bytes);
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	for (int i = 0; i < 20000 && going(); i++)
		if (write(fd, bytes, sizeof bytes) < 0)
			pause_ms(1);
	for (;;)
		pause();
}

static void console_flood(void)
{
	worker(console, 0);
	worker(console, 1);
	while (going())
		pause_ms(20);
}

const struct attack stream_attacks[] = {
	{"out-fill", always, out_fill},
	{"out-flags", always, out_flags},
	{"out-hold", always, out_hold},
	{"tty-storm", has_terminal, tty_storm},
	{"console-flood", has_console, console_flood},
	{0},
};

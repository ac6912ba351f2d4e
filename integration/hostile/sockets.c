/* Attacks on the two sockets by what is said there. */
#include "hostile.h"

#include <poll.h>

#define CONNECTIONS 20000 /* at most, of an attack */
#define WORKERS 4

static void flood(int arg)
{
	for (int i = 0; i < CONNECTIONS && going(); i++) {
		int s = dial();
		if (s < 0)
			pause_ms(1);
		else if (arg % 2 && i % 2)
			shutdown(s, SHUT_RDWR);
		if (s >= 0)
			close(s);
	}
}

static void each_worker(void (*run)(int))
{
	for (int i = 0; i < WORKERS; i++)
		worker(run, i);
	wait_workers();
}

static void sock_flood(void) { each_worker(flood); }

static void garbage(int arg)
{
	static unsigned char noise[1 << 20];
	srandom((unsigned)arg + 1);
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (unsigned char)random();
	static struct frame f;
	for (int i = 0; i < CONNECTIONS && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(1);
			continue;
		}
		switch ((i + arg) % 8) {
		case 0: send_all(s, noise, sizeof noise); break;
		case 1: send_all(s, "\xff\xff\xff\xff\x01", 5); send_all(s, noise, 4096); break;
		case 2: send_all(s, "\0\0\0\x80\x09", 5); break;
		case 3: hello(&f, "app"); send_all(s, f.data, f.size / 2); break;
		case 4: hello(&f, "app"); for (size_t n = 0; n < f.size; n++) send_all(s, f.data + n, 1); break;
		case 5: send_all(s, "\0\0\x01\0\x01", 5); send_all(s, noise, 64 << 10); break;
		case 6: begin(&f, HELLO); put16(&f, 0xffff); put32(&f, 0xffffffff); end(&f); send_all(s, f.data, f.size); break;
		case 7: send_all(s, "\0\0\0\0\0", 5); break;
		}
		if (i % 3 == 0)
			shutdown(s, SHUT_WR);
		if (i % 5 == 0)
			pause_ms(5);
		close(s);
	}
}

static void sock_garbage(void) { each_worker(garbage); }

/* Roles and versions that nobody knows, as long and as ugly as they may be: what is told of them goes to the host's log. */
static void roles(int arg)
{
	static struct frame f;
	static char role[65001];
	for (int i = 0; i < CONNECTIONS && going(); i++) {
		memset(role, i % 2 ? '\x1b' : '\n', sizeof role - 1);
		int s = dial();
		if (s < 0) {
			pause_ms(1);
			continue;
		}
		begin(&f, HELLO);
		put16(&f, (i + arg) % 3 ? (unsigned)atoi(getenv("HOSTILE_VERSION") ? getenv("HOSTILE_VERSION") : "1") : (unsigned)i);
		put_string(&f, role);
		end(&f);
		send_all(s, f.data, f.size);
		/* What waits for the shim counts as memory of the container. */
		struct pollfd gone = {.fd = s, .events = POLLIN};
		poll(&gone, 1, 100);
		close(s);
	}
}

static void sock_roles(void) { each_worker(roles); }

static const char *const role[] = {"app", "event", "component", "command", ""};

/* Whatever there is to say, in any role, one lie after the other over one connection, and again. */
static void lies(int arg)
{
	static struct frame f;
	for (int i = 0; i < CONNECTIONS && going(); i++) {
		int s = dial();
		if (s < 0) {
			pause_ms(1);
			continue;
		}
		hello(&f, role[(i + arg) % COUNT(role)]);
		send_all(s, f.data, f.size);
		for (unsigned n = (unsigned)i % 22; lie(&f, n); n++)
			if (send_all(s, f.data, f.size))
				break;
		close(s);
	}
}

static void sock_lies(void) { each_worker(lies); }

/* One and the same message over one connection, without end. */
static void endless(int arg)
{
	static struct frame f;
	for (unsigned which = (unsigned)arg; going(); which++) {
		int s = dial();
		if (s < 0) {
			pause_ms(1);
			continue;
		}
		hello(&f, role[which % COUNT(role)]);
		send_all(s, f.data, f.size);
		if (!lie(&f, which % 22))
			hello(&f, "app");
		for (int i = 0; i < 2000 && going() && !send_all(s, f.data, f.size); i++)
			;
		close(s);
	}
}

static void sock_endless(void) { each_worker(endless); }

/* Every connection there is stays open and silent. */
static void sock_hold(void)
{
	for (int held = 0; held < 400 && going();) {
		if (dial() >= 0)
			held++;
		else
			pause_ms(20);
	}
}

/* The same after a greeting, and whatever is answered is not read. */
static void sock_deaf(void)
{
	static struct frame f;
	for (int held = 0; held < 400 && going();) {
		int s = dial();
		if (s < 0) {
			pause_ms(20);
			continue;
		}
		int small = 1;
		setsockopt(s, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
		hello(&f, role[held % COUNT(role)]);
		send_all(s, f.data, f.size);
		held++;
	}
}

/* What the init may say of itself, very often and at length. */
static void notify(int arg)
{
	static char text[64 << 10];
	static const char *const lines[] = {
		"READY=1", "STATUS=\x1b[2J\a up", "READY=1\nSTATUS=x", "STOPPING=1", "RELOADING=1", "MAINPID=1", "ERRNO=2", "BUSERROR=x", "WATCHDOG=1",
		"FDSTORE=1", "=\n=\n", "\n", "X_SYSTEMD_SHUTDOWN=reboot", "STATUS=",
	};
	int s = dial_notify();
	for (int i = 0; i < 200000 && going(); i++) {
		size_t size;
		if (i % 3 == 0) {
			/* Each status is another one. */
			size = 1000 + (size_t)i % 60000;
			memset(text, arg % 2 ? 'x' : '\n', sizeof text);
			memcpy(text, "STATUS=", 7);
			snprintf(text + 7, 20, "%d %d", arg, i);
		} else {
			size = (size_t)snprintf(text, sizeof text, "%s%d", lines[(size_t)i % COUNT(lines)], i);
		}
		if (send(s, text, size, MSG_NOSIGNAL) < 0 && errno == EAGAIN)
			pause_ms(1);
	}
}

static void notify_flood(void) { each_worker(notify); }

const struct attack socket_attacks[] = {
	{"sock-flood", has_socket, sock_flood},
	{"sock-garbage", has_socket, sock_garbage},
	{"sock-roles", has_socket, sock_roles},
	{"sock-lies", has_socket, sock_lies},
	{"sock-endless", has_socket, sock_endless},
	{"sock-hold", has_socket, sock_hold},
	{"sock-deaf", has_socket, sock_deaf},
	{"notify-flood", has_notify, notify_flood},
	{0},
};

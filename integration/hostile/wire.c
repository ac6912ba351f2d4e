/* The launch protocol, as package launch has it, and passing of descriptors (unix(7)). */
#include "hostile.h"

#include <sys/un.h>

void begin(struct frame *f, enum kind kind)
{
	f->size = 5;
	f->data[4] = (unsigned char)kind;
}

void put(struct frame *f, const void *data, size_t size)
{
	if (size > sizeof f->data - f->size)
		size = sizeof f->data - f->size;
	memcpy(f->data + f->size, data, size);
	f->size += size;
}

static void little(struct frame *f, uint64_t value, int size)
{
	unsigned char b[8];
	for (int i = 0; i < size; i++)
		b[i] = (unsigned char)(value >> 8 * i);
	put(f, b, (size_t)size);
}

void put8(struct frame *f, unsigned value) { little(f, value, 1); }
void put16(struct frame *f, unsigned value) { little(f, value, 2); }
void put32(struct frame *f, uint32_t value) { little(f, value, 4); }

void put_string(struct frame *f, const char *text)
{
	put32(f, (uint32_t)strlen(text));
	put(f, text, strlen(text));
}

void end(struct frame *f)
{
	uint32_t n = (uint32_t)(f->size - 5);
	for (int i = 0; i < 4; i++)
		f->data[i] = (unsigned char)(n >> 8 * i);
}

void hello(struct frame *f, const char *role)
{
	const char *version = getenv("HOSTILE_VERSION");
	begin(f, HELLO);
	put16(f, version ? (unsigned)atoi(version) : 1);
	put_string(f, role);
	end(f);
}

int lie(struct frame *f, unsigned which)
{
	static const char *const events[] = {"reboot", "failed", "running", "degraded", "maintenance", "stopping", "poweroff", "no such"};
	if (which < COUNT(events)) {
		begin(f, EVENT);
		put_string(f, events[which]);
		end(f);
		return 1;
	}
	switch (which - COUNT(events)) {
	case 0: begin(f, EXITED); put32(f, 0); put8(f, 0); break;
	case 1: begin(f, EXITED); put32(f, 255); put8(f, 1); break;
	case 2: begin(f, FAILED); put32(f, 127); put_string(f, "\x1b[2J\a lies \xff"); break;
	case 3: begin(f, STARTED); put32(f, 1); break;
	case 4: begin(f, STARTED); put32(f, 0x7fffffff); break;
	case 5: begin(f, READY); break;
	case 6: begin(f, ENDED); put32(f, 1); put32(f, 9); put32(f, 0); put8(f, 0); break;
	case 7: begin(f, COMPONENT); put_string(f, "../../etc"); break;
	case 8: begin(f, CONSOLE); break;
	case 9: begin(f, SIGNAL); put32(f, 9); break;
	case 10: begin(f, HOLD); break;
	case 11: begin(f, LINE); put_string(f, "a line\nanother\x1b]0;title\a"); break;
	case 12: begin(f, LIMITS); break;
	case 13: begin(f, REFUSE); put_string(f, "no"); break;
	default: return 0;
	}
	end(f);
	return 1;
}

static int connect_to(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s >= 0 && connect(s, (struct sockaddr *)&address, sizeof address)) {
		int error = errno;
		close(s);
		errno = error;
		return -1;
	}
	return s;
}

int dial(void) { return connect_to("/run/rich/shim.sock", SOCK_STREAM); }
int dial_notify(void) { return connect_to("/run/rich/notify.sock", SOCK_DGRAM); }

static const char *has(int (*to)(void), const char *name)
{
	/* A full queue is there. */
	int s = to();
	if (s < 0 && errno != EAGAIN)
		return why("no %s: %s", name, strerror(errno));
	close(s);
	return NULL;
}

const char *has_socket(void) { return has(dial, "socket of the launcher"); }
const char *has_notify(void) { return has(dial_notify, "socket of sd_notify"); }

int send_all(int s, const void *data, size_t size)
{
	for (const char *p = data; size > 0;) {
		ssize_t n = send(s, p, size, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN && going()) {
			pause_ms(1);
			continue;
		}
		if (n < 0)
			return -1;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

ssize_t pass(int s, const void *data, size_t size, const int *fds, int count)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(253 * sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN((size_t)count * sizeof(int))}};
	memcpy(CMSG_DATA(&control.head), fds, (size_t)count * sizeof(int));
	struct iovec part = {(void *)(uintptr_t)data, size};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int)),
	};
	return sendmsg(s, &message, MSG_NOSIGNAL);
}

/* What the attacks share. */
#ifndef HOSTILE_H
#define HOSTILE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* An attack: possible returns NULL, or why it cannot be made here; run makes it, and returns when it has. What it holds stays
 * held until the end of the process. */
struct attack {
	const char *name;
	const char *(*possible)(void);
	void (*run)(void);
};

extern const struct attack socket_attacks[], descriptor_attacks[], cgroup_attacks[], mount_attacks[], stream_attacks[],
	signal_attacks[], process_attacks[], memory_attacks[], takeover_attacks[];

/* hostile.c */
int going(void);                             /* whether the attack's time is not over */
void pause_ms(long ms);
const char *why(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line for the test */
pid_t worker(void (*run)(int), int arg);     /* runs it in a process of its own, which ends when the time is over */
void wait_workers(void);                     /* for those that end */
const char *always(void);                    /* possible of what can always be tried */
int write_file(const char *path, const char *text);
int has_capability(int number);

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* wire.c: the launch protocol and passing of descriptors. */
enum kind {
	HELLO = 1, EVENT, START, REFUSE, STARTED, FAILED, CONSOLE, SIGNAL, EXITED,
	COMPONENT = 32, LIMITS, RUN, READY, ENDED, HOLD, LINE,
};

struct frame {
	size_t size;
	unsigned char data[5 + (64 << 10) + 16];
};

void begin(struct frame *f, enum kind kind);
void put(struct frame *f, const void *data, size_t size);
void put8(struct frame *f, unsigned value);
void put16(struct frame *f, unsigned value);
void put32(struct frame *f, uint32_t value);
void put_string(struct frame *f, const char *text);
void end(struct frame *f); /* fills in the true length */
void hello(struct frame *f, const char *role);
int lie(struct frame *f, unsigned which); /* the which-th lie; 0 if there are no more */

int dial(void);        /* a connection to the shim's socket, not blocking, or -1 */
int dial_notify(void); /* the same with the socket of sd_notify */
const char *has_socket(void);
const char *has_notify(void);
/* send_all sends until it is sent, the peer is gone or the time is over; drop loses what cannot be sent at once. */
int send_all(int s, const void *data, size_t size);
ssize_t pass(int s, const void *data, size_t size, const int *fds, int count);

/* fuse.c */
int fuse_file(int *dev); /* a file whose daemon stops to answer with fuse_stop, or -1; dev is what it serves by */
void fuse_stop(void);
const char *has_fuse(void);

/* descriptors.c: a pair of TCP sockets, of which the first lingers. */
int lingering(int pair[2]);

#endif

/*
 * probe tells what a process really got, or behaves in a way that a test needs. Static, so that it runs in any image.
 * It is C because a Go program cannot tell: its runtime raises RLIMIT_NOFILE, takes over the signals and starts threads.
 *
 *   probe [WORDS...]            prints the report on stdout
 *   probe report FILE           writes the report to FILE
 *   probe trap FILE [MS [N]]    prints "ready", appends the name of each signal to FILE; after TERM waits MS and exits N (0)
 *   probe exit N
 *   probe kill SIGNAL           sends itself SIGNAL (number, or name without SIG)
 *   probe fork-exit N           leaves a child behind that holds stdout and stderr, exits N
 *   probe blob N                writes N bytes to stdout and N to stderr: byte i is 'A'+i%26 and 'a'+i%26
 *   probe cat                   copies stdin to stdout until its end
 *   probe sleep                 waits until a signal ends it
 *   probe as-pid PID            becomes a process of that number with a child that waits; prints "ready", and then how the child
 *                               ended; exits 17 if the number is taken
 *   probe app                   as a launcher of a protocol version that does not exist: says so beside its own path, and waits
 *   probe nest DIR LENGTH DEPTH [stay|frozen]
 *                               makes cgroups in each other with names of LENGTH bytes, lifts what limits it can, leaves a process
 *                               in the deepest one, frozen if asked for, and prints how deep that is
 *
 * The report is JSON. Strings that may hold any byte are base64; see probeReport in the Go harness for the fields.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(99);
}

static void base64(FILE *out, const char *data, size_t size)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	fputc('"', out);
	for (size_t i = 0; i < size; i += 3) {
		size_t left = size - i;
		uint32_t bits = (uint32_t)(unsigned char)data[i] << 16;
		if (left > 1)
			bits |= (uint32_t)(unsigned char)data[i + 1] << 8;
		if (left > 2)
			bits |= (unsigned char)data[i + 2];
		fputc(digits[bits >> 18], out);
		fputc(digits[bits >> 12 & 63], out);
		fputc(left > 1 ? digits[bits >> 6 & 63] : '=', out);
		fputc(left > 2 ? digits[bits & 63] : '=', out);
	}
	fputc('"', out);
}

/* slurp returns the whole file with a NUL added, or an empty string when it cannot be read. */
static char *slurp(const char *path, size_t *size)
{
	size_t room = 1 << 16, used = 0;
	char *data = malloc(room);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while (data && fd >= 0) {
		ssize_t got = read(fd, data + used, room - used - 1);
		if (got <= 0)
			break;
		used += (size_t)got;
		if (room - used < 2)
			data = realloc(data, room *= 2);
	}
	if (!data)
		fail("memory");
	if (fd >= 0)
		close(fd);
	data[used] = 0;
	*size = used;
	return data;
}

/* strings prints the NUL-terminated strings of a file of /proc as a list. */
static void strings(FILE *out, const char *name, const char *path)
{
	size_t size;
	char *data = slurp(path, &size);
	fprintf(out, ",\n\"%s\":[", name);
	for (size_t i = 0; i < size;) {
		size_t length = strlen(data + i);
		if (i)
			fputc(',', out);
		base64(out, data + i, length);
		i += length + 1;
	}
	fputc(']', out);
	free(data);
}

static void link_target(FILE *out, const char *path)
{
	char target[4096];
	ssize_t length = readlink(path, target, sizeof target);
	base64(out, target, length < 0 ? 0 : (size_t)length);
}

/* status_field prints one value of /proc/self/status as a string. */
static void status_field(FILE *out, const char *status, const char *field, const char *name)
{
	char key[32];
	snprintf(key, sizeof key, "\n%s:\t", field);
	const char *at = strstr(status, key);
	int length = 0;
	if (at) {
		at += strlen(key);
		length = (int)strcspn(at, "\n");
	}
	fprintf(out, ",\n\"%s\":\"%.*s\"", name, length, at ? at : "");
}

static void limits(FILE *out)
{
	static const struct {
		int resource;
		const char *name;
	} all[] = {
		{RLIMIT_AS, "AS"}, {RLIMIT_CORE, "CORE"}, {RLIMIT_CPU, "CPU"}, {RLIMIT_DATA, "DATA"},
		{RLIMIT_FSIZE, "FSIZE"}, {RLIMIT_LOCKS, "LOCKS"}, {RLIMIT_MEMLOCK, "MEMLOCK"},
		{RLIMIT_MSGQUEUE, "MSGQUEUE"}, {RLIMIT_NICE, "NICE"}, {RLIMIT_NOFILE, "NOFILE"},
		{RLIMIT_NPROC, "NPROC"}, {RLIMIT_RSS, "RSS"}, {RLIMIT_RTPRIO, "RTPRIO"},
		{RLIMIT_RTTIME, "RTTIME"}, {RLIMIT_SIGPENDING, "SIGPENDING"}, {RLIMIT_STACK, "STACK"},
	};
	fputs(",\n\"rlimits\":{", out);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct rlimit limit = {0, 0};
		getrlimit(all[i].resource, &limit);
		fprintf(out, "%s\"RLIMIT_%s\":{\"soft\":%llu,\"hard\":%llu}", i ? "," : "", all[i].name,
			(unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
	}
	fputc('}', out);
}

/* open_files lists the descriptors that were open at start. */
static void open_files(FILE *out)
{
	DIR *folder = opendir("/proc/self/fd");
	int first = 1;
	fputs(",\n\"fds\":{", out);
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		int fd = atoi(entry->d_name);
		if (entry->d_name[0] == '.' || fd == dirfd(folder) || fd == fileno(out))
			continue;
		char path[64];
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		fprintf(out, "%s\"%d\":", first ? "" : ",", fd);
		link_target(out, path);
		first = 0;
	}
	/* On stdout the report's own stream is one that was given. */
	if (fileno(out) == 1) {
		fprintf(out, "%s\"1\":", first ? "" : ",");
		link_target(out, "/proc/self/fd/1");
	}
	fputc('}', out);
	if (folder)
		closedir(folder);
}

static void namespaces(FILE *out)
{
	static const char *const all[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
	fputs(",\n\"namespaces\":{", out);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", all[i]);
		fprintf(out, "%s\"%s\":", i ? "," : "", all[i]);
		link_target(out, path);
	}
	fputc('}', out);
}

static int report(FILE *out)
{
	size_t size;
	char *status = slurp("/proc/self/status", &size);
	mode_t mask = umask(0);
	umask(mask);

	fprintf(out, "{\"pid\":%d,\"ppid\":%d,\"pgid\":%d,\"sid\":%d", getpid(), getppid(), getpgrp(), getsid(0));
	fprintf(out, ",\n\"uid\":%u,\"euid\":%u,\"gid\":%u,\"egid\":%u", getuid(), geteuid(), getgid(), getegid());
	gid_t groups[1024];
	int count = getgroups(1024, groups);
	fputs(",\n\"groups\":[", out);
	for (int i = 0; i < count; i++)
		fprintf(out, "%s%u", i ? "," : "", groups[i]);
	fprintf(out, "],\n\"umask\":%u", mask);
	errno = 0;
	fprintf(out, ",\n\"nice\":%d", getpriority(PRIO_PROCESS, 0));
	fprintf(out, ",\n\"ioprio\":%ld", syscall(SYS_ioprio_get, 1, 0));
	char *score = slurp("/proc/self/oom_score_adj", &size);
	fprintf(out, ",\n\"oom_score_adj\":%d", atoi(score));
	free(score);

	status_field(out, status, "CapInh", "cap_inheritable");
	status_field(out, status, "CapPrm", "cap_permitted");
	status_field(out, status, "CapEff", "cap_effective");
	status_field(out, status, "CapBnd", "cap_bounding");
	status_field(out, status, "CapAmb", "cap_ambient");
	status_field(out, status, "NoNewPrivs", "no_new_privs");
	status_field(out, status, "Seccomp", "seccomp");
	status_field(out, status, "SigBlk", "sig_blocked");
	status_field(out, status, "SigIgn", "sig_ignored");
	free(status);

	limits(out);
	strings(out, "argv", "/proc/self/cmdline");
	strings(out, "environ", "/proc/self/environ");
	fputs(",\n\"cwd\":", out);
	link_target(out, "/proc/self/cwd");
	fputs(",\n\"exe\":", out);
	link_target(out, "/proc/self/exe");
	fputs(",\n\"stdio\":[", out);
	link_target(out, "/proc/self/fd/0");
	fputc(',', out);
	link_target(out, "/proc/self/fd/1");
	fputc(',', out);
	link_target(out, "/proc/self/fd/2");
	fputc(']', out);
	open_files(out);
	namespaces(out);
	char *cgroup = slurp("/proc/self/cgroup", &size);
	fputs(",\n\"cgroup\":", out);
	base64(out, cgroup, size);
	free(cgroup);
	fputs("}\n", out);
	return fflush(out) == 0 ? 0 : 98;
}

static const char *signal_name(int number)
{
	static char name[16];
	const char *abbreviation = sigabbrev_np(number);
	if (number >= SIGRTMIN)
		snprintf(name, sizeof name, "RTMIN+%d", number - SIGRTMIN);
	else
		snprintf(name, sizeof name, "%s", abbreviation ? abbreviation : "?");
	return name;
}

static int signal_number(const char *text)
{
	int number = atoi(text);
	if (number > 0)
		return number;
	for (number = 1; number <= SIGRTMAX; number++)
		if (strcmp(text, signal_name(number)) == 0)
			return number;
	errno = EINVAL;
	fail(text);
	return 0;
}

static int trap(const char *path, long delay, int code)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		fail(path);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int number = sigwaitinfo(&all, NULL);
		if (number < 0)
			continue;
		dprintf(fd, "%s\n", signal_name(number));
		if (number == SIGTERM) {
			struct timespec wait = {delay / 1000, delay % 1000 * 1000000};
			nanosleep(&wait, NULL);
			return code;
		}
	}
}

static int kill_self(const char *text)
{
	int number = signal_number(text);
	signal(number, SIG_DFL);
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, number);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	kill(getpid(), number);
	/* As pid 1 the default action does not happen. */
	return 97;
}

static int fork_exit(int code)
{
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	while (child == 0)
		pause();
	return code;
}

static void write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t written = write(fd, data, size);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			fail("write");
		data += written;
		size -= (size_t)written;
	}
}

static int blob(unsigned long long size)
{
	/* A whole number of alphabets, so that every block starts with the same letter. */
	static char upper[26 * 1024], lower[26 * 1024];
	for (size_t i = 0; i < sizeof upper; i++) {
		upper[i] = (char)('A' + i % 26);
		lower[i] = (char)('a' + i % 26);
	}
	for (; size > 0;) {
		size_t part = size < sizeof upper ? (size_t)size : sizeof upper;
		write_all(1, upper, part);
		write_all(2, lower, part);
		size -= part;
	}
	return 0;
}

static int cat(void)
{
	char data[1 << 16];
	for (;;) {
		ssize_t got = read(0, data, sizeof data);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail("read");
		if (got == 0)
			return 0;
		write_all(1, data, (size_t)got);
	}
}

static int as_pid(pid_t wanted)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
	long pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0 && errno == EEXIST)
		return 17;
	if (pid < 0)
		fail("clone3");
	int status;
	if (pid > 0) {
		if (waitpid((pid_t)pid, &status, 0) != pid)
			fail("waitpid");
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	int executed[2];
	char byte;
	if (pipe2(executed, O_CLOEXEC) < 0)
		fail("pipe2");
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		execl("/proc/self/exe", "probe", "sleep", (char *)NULL);
		_exit(1);
	}
	close(executed[1]);
	if (read(executed[0], &byte, 1) != 0) /* its end: the child is another program now */
		fail("read");
	write_all(1, "ready\n", 6);
	read(0, &byte, 1); /* until the test has tried */
	pid_t ended = waitpid(child, &status, WNOHANG);
	kill(child, SIGKILL);
	char text[32];
	write_all(1, text, (size_t)sprintf(text, "%s\n", ended == child ? "hit" : "alive"));
	return 0;
}

/* launch/wire.go and message.go: the frame's length, its type, the version, the role. */
static void app(const char *self)
{
	static const char hello[] = "\x09\0\0\0" "\x01" "\xe7\x03" "\x03\0\0\0" "app";
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const char *slash = strrchr(self, '/');
	snprintf(to.sun_path, sizeof to.sun_path, "%.*s/shim.sock", slash ? (int)(slash - self) : 1, slash ? self : ".");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail(to.sun_path);
	write_all(fd, hello, sizeof hello - 1);
	for (;;)
		pause();
}

/* Whether a file of the working directory could be written. */
static int put(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

static int nest(const char *top, size_t length, long depth, const char *leave)
{
	char name[256] = "";
	long made = 0;
	if (chdir(top) < 0)
		fail(top);
	if (length >= sizeof name)
		length = sizeof name - 1;
	memset(name, 'n', length);
	put("cgroup.max.depth", "max");
	put("cgroup.max.descendants", "max");
	while (made < depth && mkdir(name, 0755) == 0 && chdir(name) == 0)
		made++;
	if (*leave) {
		int ends[2];
		char none, text[32];
		if (pipe2(ends, O_CLOEXEC) < 0)
			fail("pipe");
		pid_t child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0) {
			setsid();
			for (int fd = 0; fd < 3; fd++)
				close(fd);
			close(ends[0]);
			close(ends[1]);
			for (;;)
				pause();
		}
		/* Until it has let go of the streams. */
		close(ends[1]);
		while (read(ends[0], &none, 1) < 0 && errno == EINTR)
			;
		snprintf(text, sizeof text, "%ld", (long)child);
		if (!put("cgroup.procs", text))
			fail("cgroup.procs");
		if (strcmp(leave, "frozen") == 0 && !put("freezer.state", "FROZEN") && !put("cgroup.freeze", "1"))
			fail("freeze");
	}
	printf("%ld\n", made);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	if (strcmp(verb, "report") == 0 && argc == 3) {
		FILE *out = fopen(argv[2], "we");
		if (!out)
			fail(argv[2]);
		return report(out);
	}
	if (strcmp(verb, "trap") == 0 && argc >= 3 && argc <= 5)
		return trap(argv[2], argc > 3 ? atol(argv[3]) : 0, argc > 4 ? atoi(argv[4]) : 0);
	if (strcmp(verb, "exit") == 0 && argc == 3)
		return atoi(argv[2]);
	if (strcmp(verb, "kill") == 0 && argc == 3)
		return kill_self(argv[2]);
	if (strcmp(verb, "fork-exit") == 0 && argc == 3)
		return fork_exit(atoi(argv[2]));
	if (strcmp(verb, "blob") == 0 && argc == 3)
		return blob(strtoull(argv[2], NULL, 10));
	if (strcmp(verb, "cat") == 0 && argc == 2)
		return cat();
	if (strcmp(verb, "as-pid") == 0 && argc == 3)
		return as_pid(atoi(argv[2]));
	if ((strcmp(verb, "app") == 0 || strcmp(verb, "command") == 0) && argc >= 2)
		app(argv[0]);
	if (strcmp(verb, "nest") == 0 && (argc == 5 || argc == 6))
		return nest(argv[2], strtoull(argv[3], NULL, 10), atol(argv[4]), argc > 5 ? argv[5] : "");
	while (strcmp(verb, "sleep") == 0 && argc == 2)
		pause();
	return report(stdout);
}

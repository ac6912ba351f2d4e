/*
 * hostile attacks, from inside a container, whatever a container gets of its shim. Static, so that it runs in any image.
 *
 *   hostile list           writes to REPORT/possible which attacks can be made here: a line "NAME yes" or "NAME no WHY" for each
 *   hostile run NAME       makes the attack, writes "done" to REPORT/state, and stays, with all that it holds
 *   hostile true           exits 0
 *
 * REPORT is /report, a folder of the test. An attack ends by itself: it is bounded in time (HOSTILE_MS, 2000), and in the
 * number and size of what it makes, so that it hurts nobody if the shim does not withstand it. HOSTILE_VERSION is the
 * version of the launch protocol.
 */
#include "hostile.h"

#include <stdarg.h>
#include <time.h>

static const struct attack *const all[] = {
	socket_attacks, descriptor_attacks, cgroup_attacks, mount_attacks, stream_attacks, signal_attacks, process_attacks,
	memory_attacks, takeover_attacks,
};

static struct timespec until;
static int state = -1;

int going(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec);
}

void pause_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

const char *why(const char *format, ...)
{
	static char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return text;
}

const char *always(void) { return NULL; }

void note(const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int size = vsnprintf(text, sizeof text - 1, format, args);
	va_end(args);
	size = size < (int)sizeof text - 1 ? size : (int)sizeof text - 2;
	text[size++] = '\n';
	if (write(state, text, (size_t)size) < 0)
		return; /* nobody is left to tell */
}

pid_t worker(void (*run)(int), int arg)
{
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	run(arg);
	_exit(0);
}

void wait_workers(void)
{
	while (going() && (waitpid(-1, NULL, WNOHANG) >= 0 || errno == EINTR))
		pause_ms(10);
}

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	int error = errno;
	close(fd);
	errno = error;
	return n < 0 ? -1 : 0;
}

int has_capability(int number)
{
	char line[256];
	unsigned long long effective = 0;
	FILE *status = fopen("/proc/self/status", "re");
	while (status && fgets(line, sizeof line, status))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (status)
		fclose(status);
	return effective >> number & 1;
}

static void list(void)
{
	FILE *out = fopen("/report/possible.part", "we");
	for (size_t i = 0; out && i < COUNT(all); i++)
		for (const struct attack *a = all[i]; a->name; a++) {
			const char *not = a->possible();
			fprintf(out, not ? "%s no %s\n" : "%s yes\n", a->name, not);
		}
	if (!out || fclose(out) || rename("/report/possible.part", "/report/possible"))
		_exit(99);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "true"))
		return 0;
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "list")) {
		list();
		return 0;
	}
	if (argc != 3 || strcmp(argv[1], "run"))
		return 98;
	const char *ms = getenv("HOSTILE_MS");
	long time = ms ? atol(ms) : 2000;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += time / 1000;
	until.tv_nsec += time % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	state = open("/report/state", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (state < 0)
		return 97;
	for (size_t i = 0; i < COUNT(all); i++)
		for (const struct attack *a = all[i]; a->name; a++) {
			if (strcmp(a->name, argv[2]))
				continue;
			const char *not = a->possible();
			if (not) {
				note("not possible: %s", not);
			} else {
				note("attacking");
				a->run();
				note("done");
			}
			for (;;)
				pause();
		}
	return 96;
}

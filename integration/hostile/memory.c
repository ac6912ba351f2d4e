/* Attacks by memory, open files and limits. The container has a limit of memory. */
#include "hostile.h"

#include <sys/resource.h>

static void eat(int arg)
{
	write_file("/proc/self/oom_score_adj", "1000");
	for (int i = 0; i < 512; i++) {
		char *p = malloc(1 << 20);
		if (p)
			memset(p, arg + 1, 1 << 20);
	}
	pause();
}

/* One is killed after the other. */
static void mem_oom(void)
{
	int killed = 0;
	for (int i = 0; i < 40 && going(); i++) {
		int status = 0;
		pid_t pid = worker(eat, i);
		while (waitpid(pid, &status, WNOHANG) == 0 && going())
			pause_ms(5);
		killed += WIFSIGNALED(status);
	}
	note("%d killed", killed);
}

static void open_many(int arg)
{
	for (int i = 0; i < 1000; i++)
		if (open(arg % 2 ? "/proc/self/status" : "/dev/null", O_RDONLY | O_CLOEXEC) < 0)
			break;
	for (;;)
		pause();
}

static void mem_files(void)
{
	for (int i = 0; i < 20; i++)
		worker(open_many, i);
	pause_ms(300);
}

/* The launcher and pid 1 lose what they need, as far as that is allowed. */
static void mem_limits(void)
{
	static const enum __rlimit_resource all[] = {RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_AS, RLIMIT_STACK, RLIMIT_CPU, RLIMIT_SIGPENDING, RLIMIT_DATA};
	const struct rlimit none = {1, 1};
	const pid_t pids[] = {getppid(), 1, getpid()};
	for (size_t p = 0; p < COUNT(pids); p++)
		for (size_t i = 0; i < COUNT(all); i++)
			if (pids[p] > 0 && (pids[p] != getpid() || all[i] == RLIMIT_NOFILE))
				prlimit(pids[p], all[i], &none, NULL);
}

const struct attack memory_attacks[] = {
	{"mem-oom", always, mem_oom},
	{"mem-files", always, mem_files},
	{"mem-limits", always, mem_limits},
	{0},
};

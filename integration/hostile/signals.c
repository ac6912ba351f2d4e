/* Attacks by signals, and on the processes that the shim relies on. */
#include "hostile.h"

#include <dirent.h>
#include <sys/ptrace.h>

static const char *has_launcher(void)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof path, "/proc/%d/cmdline", getppid());
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, line, sizeof line - 1) < 0)
		line[0] = 0;
	close(fd);
	if (getppid() < 2 || !strstr(line, "/run/rich/"))
		return "no launcher above the command";
	return kill(getppid(), 0) ? why("a signal to the launcher: %s", strerror(errno)) : NULL;
}

static void launcher_stop(void) { kill(getppid(), SIGSTOP); }

static const char *can_trace(void)
{
	const char *reason = has_launcher();
	if (reason)
		return reason;
	if (ptrace(PTRACE_SEIZE, getppid(), NULL, NULL))
		return why("trace the launcher: %s", strerror(errno));
	ptrace(PTRACE_INTERRUPT, getppid(), NULL, NULL);
	waitpid(getppid(), NULL, __WALL);
	ptrace(PTRACE_DETACH, getppid(), NULL, NULL);
	return NULL;
}

static void launcher_trace(void)
{
	const pid_t pids[] = {getppid(), 1};
	for (size_t i = 0; i < COUNT(pids); i++)
		if (!ptrace(PTRACE_SEIZE, pids[i], NULL, (void *)PTRACE_O_TRACEEXIT))
			ptrace(PTRACE_INTERRUPT, pids[i], NULL, NULL);
}

static void storm(int arg)
{
	pid_t parent = getppid(); /* the command */
	for (int i = 0; i < 20000 && going(); i++) {
		int n = 1 + (i + arg) % SIGRTMAX;
		kill(1, n);
		if (n != SIGKILL && n != SIGSTOP && n != SIGTERM)
			kill(arg, n);
		union sigval value = {.sival_int = i};
		if (n != SIGKILL && n != SIGSTOP)
			sigqueue(parent, n, value);
	}
}

static void ignore_all(void)
{
	sigset_t every;
	for (int i = 1; i <= SIGRTMAX; i++)
		signal(i, SIG_IGN);
	sigfillset(&every);
	sigprocmask(SIG_BLOCK, &every, NULL);
}

static void sig_storm(void)
{
	pid_t launcher = getppid();
	ignore_all();
	for (int i = 0; i < 2; i++)
		worker(storm, launcher);
	while (going())
		pause_ms(20);
}

/* Whatever else comes into the container stands still. */
static void exec_stop(void)
{
	pid_t old[2] = {getpid(), getppid()};
	while (going()) {
		DIR *proc = opendir("/proc");
		for (struct dirent *entry; proc && (entry = readdir(proc));) {
			pid_t pid = atoi(entry->d_name);
			if (pid > 1 && pid != old[0] && pid != old[1])
				kill(pid, SIGSTOP);
		}
		if (proc)
			closedir(proc);
	}
}

const struct attack signal_attacks[] = {
	{"launcher-stop", has_launcher, launcher_stop},
	{"launcher-trace", can_trace, launcher_trace},
	{"sig-storm", always, sig_storm},
	{"sig-ignore", always, ignore_all},
	{"exec-stop", always, exec_stop},
	{0},
};

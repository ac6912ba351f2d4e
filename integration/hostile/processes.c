/* Attacks by the number, the kinship and the ids of processes. */
#include "hostile.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>

#define PROCESSES 400 /* at a time */

static void stay(int arg)
{
	(void)arg;
	setsid();
	for (;;)
		pause();
}

/* Children, grandchildren and their orphans come and go; some end at once, some are never reaped. */
static void breed(int arg)
{
	for (int i = 0; i < 5000 && going(); i++) {
		pid_t pid = fork();
		if (pid == 0) {
			if (i % 2 && fork() > 0)
				_exit(i);
			if (i % 3 == 0)
				setsid();
			_exit(arg);
		}
		if (pid < 0)
			pause_ms(1);
		else if (i % 50)
			waitpid(pid, NULL, 0);
	}
	stay(0);
}

static void fork_storm(void)
{
	for (int i = 0; i < 4; i++)
		worker(breed, i);
	while (going())
		pause_ms(20);
}

/* Many that stay: in sessions of their own, without parents, as zombies. */
static void fork_stay(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < PROCESSES && going(); i++) {
		pid_t pid = fork();
		if (pid == 0) {
			if (i % 3 == 0)
				_exit(0);
			if (i % 3 == 1 && fork() > 0)
				_exit(0);
			stay(0);
		}
	}
}

static void level(int depth)
{
	for (int i = 0; depth > 0 && i < 3; i++)
		worker(level, depth - 1);
	stay(0);
}

/* A tree loses its middle. */
static void fork_tree(void)
{
	for (int round = 0; round < 10 && going(); round++) {
		pid_t top = worker(level, 3);
		pause_ms(50);
		kill(top, SIGKILL);
	}
}

static long clone_as(unsigned long flags, int exit_signal)
{
	return syscall(SYS_clone, flags | (unsigned long)exit_signal, NULL, NULL, NULL, NULL);
}

/* Children of the parent's, of no signal, in namespaces of their own, and a parent that waits for its vfork. */
static void clone_odd(void)
{
	static const unsigned long flags[] = {
		CLONE_PARENT, CLONE_UNTRACED, CLONE_FS, CLONE_FILES, CLONE_NEWUSER, CLONE_NEWUSER | CLONE_NEWPID, CLONE_NEWUSER | CLONE_NEWNS,
		CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWNET | CLONE_NEWUSER, CLONE_NEWCGROUP | CLONE_NEWUSER, CLONE_SYSVSEM, CLONE_IO,
	};
	static const int signals[] = {0, SIGCHLD, SIGURG, SIGCONT, SIGWINCH};
	for (int i = 0; i < 200 && going(); i++) {
		long pid = clone_as(flags[(size_t)i % COUNT(flags)], signals[(size_t)i % COUNT(signals)]);
		if (pid == 0) {
			if (i % 2)
				_exit(i);
			stay(0);
		}
	}
	if (fork() == 0) {
		if (syscall(SYS_vfork) == 0)
			for (;;)
				pause();
		_exit(0);
	}
}

/* Ids that the shim has seen come again: all of them by turns, or just these where that may be asked for. */
static void pid_cycle(void)
{
	pid_t first = getpid();
	int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC), made = 0, wanted = 0;
	for (pid_t next = 2; made < 100000 && going(); made++) {
		int status;
		pid_t set = next;
		struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&set, .set_tid_size = 1};
		char text[16];
		int length = snprintf(text, sizeof text, "%d", next - 1);
		long pid = syscall(SYS_clone3, &args, sizeof args);
		if (pid < 0 && last >= 0 && pwrite(last, text, (size_t)length, 0) < 0)
			pid = -1;
		if (pid < 0)
			pid = fork();
		if (pid == 0)
			_exit(0);
		wanted += pid == next;
		next = next > first + 200 ? 2 : next + 1;
		if (pid > 0)
			waitpid((pid_t)pid, &status, 0);
	}
	note("%d processes, %d with the wanted id", made, wanted);
}

const struct attack process_attacks[] = {
	{"fork-storm", always, fork_storm},
	{"fork-stay", always, fork_stay},
	{"fork-tree", always, fork_tree},
	{"clone-odd", always, clone_odd},
	{"pid-cycle", always, pid_cycle},
	{0},
};

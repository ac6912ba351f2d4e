package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"
)

// What containerd's own end, and its absence, must not change. None of these tests is parallel: the containerd that they
// kill is everybody's.

// crash ends containerd as a crash would: nothing that it holds is put in order.
func (d *daemon) crash(t testing.TB) {
	t.Helper()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
}

// resume starts containerd again.
func (d *daemon) resume(t testing.TB) {
	t.Helper()
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
}

// resumeUnheard starts containerd again, but keeps the events of the shims away from it until the returned function is
// called: before that nobody can subscribe to them. It listens at another address than the shims know.
func (d *daemon) resumeUnheard(t testing.TB) (listen func()) {
	t.Helper()
	known := d.Events
	d.Events = otherEvents(known)
	if err := d.Configure(); err != nil {
		t.Fatal(err)
	}
	d.resume(t)
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(known), os.Symlink(d.Events, known)); err != nil {
			t.Fatal(err)
		}
	}
}

// otherEvents is the second of two addresses for events, or the first of the second.
func otherEvents(known string) string {
	const second = ".2"
	if first, ok := strings.CutSuffix(known, second); ok {
		return first
	}
	return known + second
}

// reattach waits for a task's end once more, after a restart of containerd.
func (r *task) reattach() {
	r.t.Helper()
	var err error
	if r.exit, err = r.Task.Wait(r.daemon.context()); err != nil {
		r.fatal("wait: %v", err)
	}
}

// exitStored waits until the shim has noted the end of a task.
func (r *task) exitStored() {
	r.t.Helper()
	eventually(r.t, runLimit, "the end of "+r.ID, func() error {
		_, err := os.Stat(r.bundle("rich", "exit.json"))
		return err
	})
}

// exits counts the exit events of the task itself.
func (l *eventLog) exits(id string) int {
	n := 0
	for _, e := range l.Events() {
		if exit, ok := e.Event.(*events.TaskExit); ok && exit.ID == id {
			n++
		}
	}
	return n
}

// established waits until containerd serves the subscription, which the client does not tell.
func (l *eventLog) established() {
	l.t.Helper()
	eventually(l.t, callLimit, "the subscription", func() error {
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := private.Client.EventService().Publish(ctx, "/tasks/test", &events.TaskOOM{ContainerID: l.id}); err != nil {
			return err
		}
		if len(l.Events()) == 0 {
			return errors.New("it does not get what is published")
		}
		return nil
	})
}

// lifeVariants are one of each way to run a command.
var lifeVariants = []variant{plain, dumbInit, systemdBookworm}

func TestB29Restart(t *testing.T) {
	compare := snapshotHost(t)
	const count = `trap 'echo bye; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done`
	var runs []*task
	for _, v := range lifeVariants {
		runs = append(runs, startTask(t, v.image, v.with(withArgs("sh", "-c", count))...))
	}
	// One whose output nobody reads: the command is stuck in its write.
	unread := newUnread(t, false)
	stuck := newTask(t, imageBusybox, withInit("none"), withArgs("yes"))
	stuck.replace(unread.create)
	stuck.Start()
	pids := map[*task]uint32{}
	for _, run := range runs {
		run.WaitOutput("1\n", runLimit)
		pids[run] = run.Task.Pid()
	}
	for range 20 {
		private.crash(t)
		private.resume(t)
	}
	for _, run := range append(runs, stuck) {
		run.running()
		run.reattach()
	}
	for _, run := range runs {
		log := subscribe(t, run.ID)
		if got := run.Exec("sh", "-c", "echo in; exit 4"); got.Code != 4 || got.Stdout != "in\n" {
			t.Errorf("%s: exec: %+v", run.ID, got)
		}
		if pid := run.Task.Pid(); pid != pids[run] {
			t.Errorf("%s: pid 1 is %d, was %d", run.ID, pid, pids[run])
		}
		if len(run.commandLines()) == 0 {
			t.Errorf("%s: no process is listed", run.ID)
		}
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 7)
		lines := strings.Split(strings.TrimSuffix(run.Stdout.String(), "\n"), "\n")
		for i, line := range lines[:len(lines)-1] {
			if line != strconv.Itoa(i+1) {
				t.Errorf("%s: line %d of the output is %q", run.ID, i+1, line)
				break
			}
		}
		if last := lines[len(lines)-1]; last != "bye" {
			t.Errorf("%s: the output ends with %q", run.ID, last)
		}
	}
	stuck.Kill(syscall.SIGKILL)
	if code := stuck.Wait(runLimit); code != 137 {
		t.Errorf("the stuck command ended with %d, want 137", code)
	}
	stuck.Delete()
	compare()
}

func TestB29ExitWhileDaemonIsDown(t *testing.T) {
	compare := snapshotHost(t)
	type case_ struct {
		*task
		want int
		pid  int
	}
	var cases []case_
	dir := t.TempDir()
	for _, v := range lifeVariants {
		opts := v.with(withBind(dir, "/sync"), withArgs("sh", "-c", "echo ready; until test -e /sync/go; do sleep 0.05; done; echo bye; exit 5"))
		cases = append(cases, case_{startTask(t, v.image, opts...), 5, 0})
		run := startTask(t, v.image, v.with(withArgs("sh", "-c", ready+idle))...)
		cases = append(cases, case_{run, 137, int(run.Task.Pid())})
	}
	for _, c := range cases {
		c.WaitOutput("ready\n", runLimit)
	}
	private.crash(t)
	before := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if c.pid != 0 {
			if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		c.exitStored()
	}
	after := time.Now()
	listen := private.resumeUnheard(t)
	var logs []*eventLog
	for _, c := range cases {
		logs = append(logs, subscribe(t, c.ID))
	}
	for _, log := range logs {
		log.established()
	}
	listen()
	for _, c := range cases {
		ctx, cancel := private.within(callLimit)
		status, err := c.Task.Status(ctx)
		if err != nil {
			c.fatal("status: %v", err)
		}
		if status.Status != containerd.Stopped || int(status.ExitStatus) != c.want || status.ExitTime.Before(before) || status.ExitTime.After(after) {
			t.Errorf("%s: %+v, want it stopped with %d between %v and %v", c.ID, status, c.want, before, after)
		}
		if err := c.Task.Kill(ctx, syscall.SIGKILL); !errdefs.IsNotFound(err) {
			t.Errorf("%s: kill: %v, want it not found", c.ID, err)
		}
		cancel()
		if _, err := c.TryExec(byOperator, "true"); err == nil {
			t.Errorf("%s: an exec was started", c.ID)
		}
	}
	for i, c := range cases {
		c.reattach()
		if code := c.Wait(runLimit); code != c.want {
			t.Errorf("%s: wait reports %d, want %d", c.ID, code, c.want)
		}
		if code := c.Delete(); code != c.want {
			t.Errorf("%s: delete reports %d, want %d", c.ID, code, c.want)
		}
		logs[i].Wait(runtime.TaskDeleteEventTopic, runLimit)
		if n := logs[i].exits(c.ID); n != 1 {
			t.Errorf("%s: %d exit events", c.ID, n)
		}
		if c.want == 5 && c.Stdout.String() != "ready\nbye\n" {
			t.Errorf("%s: stdout is %q", c.ID, c.Stdout)
		}
	}
	compare()
}

// A containerd that is not dead but slow gets each event, and only once.
func TestB29SlowDaemon(t *testing.T) {
	const pause = 12 * time.Second
	compare := snapshotHost(t)
	dir := t.TempDir()
	var runs []*task
	var logs []*eventLog
	for _, v := range lifeVariants {
		run, log := watch(t, v.image, v.with(withBind(dir, "/sync"), withArgs("sh", "-c", "echo ready; until test -e /sync/go; do sleep 0.05; done; exit 5"))...)
		runs, logs = append(runs, run), append(logs, log)
		run.WaitOutput("ready\n", runLimit)
	}
	if err := private.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = private.Signal(syscall.SIGCONT) }()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		run.exitStored()
	}
	time.Sleep(pause)
	if err := private.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for i, run := range runs {
		run.outcome(logs[i], 5)
	}
	compare()
}

// procState is the state letter and the parent of a process (proc_pid_stat(5)).
func procState(pid int) (state string, parent int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err
}

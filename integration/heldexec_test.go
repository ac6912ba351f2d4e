package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Execs that do not get on, or that leave something behind, must hold up nothing but themselves.

func execSpec(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
}

// TestHostileStop: a container that stops whatever enters it can hold up its execs, not their removal and not its own end.
func TestHostileStop(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withArgs("sh", "-c", ready+"while :; do kill -STOP -1; done"))...)
		run.WaitOutput("ready\n", runLimit)
		for i := range 3 {
			// Which of them get through is a matter of luck.
			ctx, cancel := context.WithTimeout(private.context(), 3*time.Second)
			_ = oneExec(ctx, run.Task, fmt.Sprintf("e%d", i), execSpec("true"))
			cancel()
		}
		run.Kill(syscall.SIGKILL)
		if code := run.Wait(runLimit); code != 137 {
			t.Errorf("exit status %d, want 137", code)
		}
		run.outcomeOf(log, 137)
	})
}

// TestFrozenOutside: a container that somebody else has frozen takes no execs, and can be killed.
func TestFrozenOutside(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{plain, dumbInit} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			run := startIdle(t, v)
			freezer, frozen := limitFile{"freezer", "freezer.state", "cgroup.freeze"}.at(private.Cgroup()+"/"+run.ID), "FROZEN"
			if unified() {
				frozen = "1"
			}
			if err := os.WriteFile(freezer, []byte(frozen), 0); err != nil {
				t.Fatal(err)
			}
			eventually(t, runLimit, "frozen", func() error {
				text, err := os.ReadFile(freezer)
				if got := strings.TrimSpace(string(text)); err == nil && got != frozen {
					return fmt.Errorf("%s", got)
				}
				return err
			})
			ctx, cancel := private.within(callLimit)
			defer cancel()
			if err := oneExec(ctx, run.Task, "e", execSpec("true")); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("exec: got %v, want a failed precondition", err)
			}
			run.Kill(syscall.SIGKILL)
			if code := run.Wait(runLimit); code != 137 {
				t.Errorf("exit status %d, want 137", code)
			}
		})
	}
}

// TestPauseCreated: what has not been started cannot be paused, and can then be started.
func TestPauseCreated(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := newTask(t, v.image, v.with(withArgs("sh", "-c", "exit 4"))...)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := run.Task.Pause(ctx); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause: got %v, want a failed precondition", err)
		}
		run.Start()
		if code := run.Wait(runLimit); code != 4 {
			t.Errorf("exit status %d, want 4", code)
		}
	})
}

// TestPauseTwice: what is refused changes nothing, neither a pause of a paused task nor a resume of one that runs.
func TestPauseTwice(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := startIdle(t, v)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := run.Task.Resume(ctx); err == nil {
			t.Error("a task that runs was resumed")
		}
		if err := oneExec(ctx, run.Task, "before", execSpec("true")); err != nil {
			t.Errorf("exec after a refused resume: %v", err)
		}
		// The kernel may not freeze processes that are being forked.
		eventually(t, callLimit, "the pause", func() error { return run.Task.Pause(ctx) })
		if err := run.Task.Pause(ctx); err == nil {
			t.Error("a paused task was paused")
		}
		if err := oneExec(ctx, run.Task, "paused", execSpec("true")); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("exec in a paused task: %v", err)
		}
		if err := run.Task.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		if err := oneExec(ctx, run.Task, "after", execSpec("true")); err != nil {
			t.Errorf("exec after the resume: %v", err)
		}
	})
}

// unreadFifo makes a fifo that nobody reads.
func unreadFifo(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// waitingExec begins the start of an exec that waits for the reader of its stdout.
func (r *task) waitingExec(t *testing.T) (exec containerd.Process, fifo string, started <-chan error) {
	t.Helper()
	fifo = unreadFifo(t)
	ctx, cancel := private.within(runLimit)
	t.Cleanup(cancel)
	exec, err := r.Task.Exec(ctx, "waiting", execSpec("sleep", "1000"), fixedIO(cio.Config{Stdout: fifo}).create)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- exec.Start(ctx) }()
	select {
	case err := <-result:
		t.Fatalf("the start did not wait: %v", err)
	case <-time.After(300 * time.Millisecond): // it may not have come to wait yet; then the test tests less
	}
	return exec, fifo, result
}

func within(t *testing.T, what string, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(runLimit):
		t.Fatalf("%s does not return", what)
		panic("not reached")
	}
}

// TestExecDeletedWhileItStarts: then it does not start any more, and nothing of it is left.
func TestExecDeletedWhileItStarts(t *testing.T) {
	t.Parallel()
	run := startIdle(t, plain)
	exec, fifo, started := run.waitingExec(t)
	ctx, cancel := private.within(callLimit)
	defer cancel()
	if _, err := exec.Delete(ctx); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := within(t, "the start", started); err == nil {
		t.Error("the exec has started after it was deleted")
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got := run.Exec("ps"); strings.Contains(got.Stdout, "sleep 1000") {
		t.Errorf("it runs:\n%s", got.Stdout)
	}
	if _, err := run.Task.LoadProcess(ctx, "waiting", nil); !errdefs.IsNotFound(err) {
		t.Errorf("load: %v", err)
	}
}

// TestExecStartedTwice: one of two starts at once starts it.
func TestExecStartedTwice(t *testing.T) {
	t.Parallel()
	run := startIdle(t, plain)
	exec, fifo, first := run.waitingExec(t)
	ctx, cancel := private.within(runLimit)
	defer cancel()
	second := make(chan error, 1)
	go func() { second <- exec.Start(ctx) }()
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	errs := []error{within(t, "the first start", first), within(t, "the second start", second)}
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("the starts: %v and %v", errs[0], errs[1])
	}
	if _, err := exec.Delete(ctx, containerd.WithProcessKill); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// TestExecStartsAtTheEnd: the end of a container does not wait for the start of an exec.
func TestExecStartsAtTheEnd(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withArgs("sh", "-c", ready+idle))...)
		run.WaitOutput("ready\n", runLimit)
		_, _, started := run.waitingExec(t)
		run.Kill(syscall.SIGKILL)
		if code := run.Wait(runLimit); code != 137 {
			t.Errorf("exit status %d, want 137", code)
		}
		if err := within(t, "the start", started); err == nil {
			t.Error("the exec has started")
		}
		run.outcomeOf(log, 137)
	})
}

// TestExecLeavesProcess: a process that an exec has left behind keeps its output open no longer than until the exec is deleted.
func TestExecLeavesProcess(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := startIdle(t, v)
		for name, c := range map[string]struct{ script, want string }{
			"silent": {"sleep 1000 & echo out; exit 3", "out\n"},
			"late":   {"(sleep 1; echo late; exec sleep 1000) & echo out; exit 3", "out\nlate\n"},
		} {
			ctx, cancel := private.within(runLimit)
			defer cancel()
			var stdout, stderr output
			exec, exit, err := startExec(ctx, run.Task, name, execSpec("sh", "-c", c.script),
				cio.NewCreator(cio.WithStreams(nil, &stdout, &stderr), cio.WithFIFODir(private.Dir+"/fifo")))
			if err != nil {
				t.Fatal(err)
			}
			if status := <-exit; status.ExitCode() != 3 {
				t.Errorf("%s: %+v", name, status)
			}
			// Without the client's own end of its streams, which would hide whether ours ends.
			if _, err := private.Client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: run.ID, ExecID: name}); err != nil {
				t.Errorf("%s: delete: %v", name, err)
			}
			if !drained(exec.IO()) {
				t.Errorf("%s: the output has not come to its end", name)
			}
			exec.IO().Close()
			if stdout.String() != c.want {
				t.Errorf("%s: stdout %q", name, stdout.String())
			}
		}
	})
}

// TestExecTerminalLeavesWriter: what goes on to write to the terminal of an exec does not keep the exec from ending.
func TestExecTerminalLeavesWriter(t *testing.T) {
	t.Parallel()
	run := startIdle(t, plain)
	ctx, cancel := private.within(runLimit)
	defer cancel()
	spec := execSpec("sh", "-c", "trap '' HUP; (while :; do echo x; sleep 0.1; done) & echo said; exit 3")
	spec.Terminal = true
	var stdout output
	exec, exit, err := startExec(ctx, run.Task, "e", spec,
		cio.NewCreator(cio.WithStreams(nil, &stdout, nil), cio.WithTerminal, cio.WithFIFODir(private.Dir+"/fifo")))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case status := <-exit:
		if status.ExitCode() != 3 {
			t.Errorf("%+v", status)
		}
	case <-ctx.Done():
		t.Fatal("the exec has not ended")
	}
	if _, err := exec.Delete(ctx); err != nil {
		t.Errorf("delete: %v", err)
	}
	if !strings.Contains(stdout.String(), "said\r\n") {
		t.Errorf("stdout %q", stdout.String())
	}
}

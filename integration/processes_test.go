package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The field cases about processes that end at the same time, that are left behind, or that hold on to the output.

// inOrder checks the events of a task that has ended: each start comes before its exit, the exits of execs before that of
// pid 1, which there is one of, and nothing is started afterwards.
func inOrder(t *testing.T, log *eventLog, id string) (started int) {
	t.Helper()
	const added, running, exited = "added", "started", "exited"
	execs, ended := map[string]string{}, 0
	step := func(exec, from, to string) {
		if execs[exec] != from || ended > 0 {
			t.Errorf("exec %s %s: it was %q before, pid 1 has ended %d times", exec, to, execs[exec], ended)
		}
		execs[exec] = to
	}
	for _, e := range log.Events() {
		switch e := e.Event.(type) {
		case *events.TaskExecAdded:
			step(e.ExecID, "", added)
		case *events.TaskExecStarted:
			step(e.ExecID, added, running)
			started++
		case *events.TaskExit:
			switch {
			case strings.HasPrefix(e.ID, "service:"): // a crash of what an init runs, docs/signals-and-status.md
			case e.ID != id:
				step(e.ID, running, exited)
			default:
				ended++
			}
		}
	}
	if ended != 1 {
		t.Errorf("pid 1 has ended %d times", ended)
	}
	for exec, state := range execs {
		if state == running {
			t.Errorf("exec %s never ended", exec)
		}
	}
	return started
}

func TestB31ManyExecs(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		const execs, before = 500, 10
		run, log := watch(t, v.image, v.with(withArgs("sleep", "1000"))...)
		ctx, cancel := private.within(2 * runLimit)
		defer cancel()
		spec, err := run.Container.Spec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		process := *spec.Process
		process.Args = []string{"date"}
		var ran, refused atomic.Int32
		var all sync.WaitGroup
		enough := make(chan struct{})
		for i := range execs {
			all.Go(func() {
				if err := oneExec(ctx, run.Task, fmt.Sprintf("e%d", i), &process); err != nil {
					if ctx.Err() != nil {
						t.Errorf("exec %d: %v", i, err)
					}
					refused.Add(1)
				} else if ran.Add(1) == before {
					close(enough)
				}
			})
		}
		<-enough
		if err := syscall.Kill(int(run.Task.Pid()), syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if code := run.Wait(runLimit); code != 137 {
			t.Errorf("exit status %d, want 137", code)
		}
		if _, err := run.TryExec(func(*specs.Process) {}, "true"); err == nil {
			t.Error("an exec was started afterwards")
		}
		all.Wait()
		log.Wait(runtime.TaskExitEventTopic, runLimit)
		run.Delete()
		log.Wait(runtime.TaskDeleteEventTopic, runLimit)
		started := inOrder(t, log, run.ID)
		t.Logf("%d execs ran, %d did not, %d started", ran.Load(), refused.Load(), started)
		if started < before || refused.Load() == 0 {
			t.Errorf("%d execs were started and %d refused", started, refused.Load())
		}
	})
}

// startExec starts an exec, whose end comes on the channel.
func startExec(ctx context.Context, task containerd.Task, id string, process *specs.Process, streams cio.Creator) (containerd.Process, <-chan containerd.ExitStatus, error) {
	exec, err := task.Exec(ctx, id, process, streams)
	if err != nil {
		return nil, nil, err
	}
	exit, err := exec.Wait(ctx)
	if err != nil {
		return nil, nil, err
	}
	return exec, exit, exec.Start(ctx)
}

// oneExec runs an exec to its end. An error is about the runtime, not about how the exec ended.
func oneExec(ctx context.Context, task containerd.Task, id string, process *specs.Process) error {
	_, exit, err := startExec(ctx, task, id, process, cio.NullIO)
	if err != nil {
		return err
	}
	return (<-exit).Error()
}

func TestB31ShortLife(t *testing.T) {
	t.Parallel()
	for _, init := range []string{"none", "dumb-init"} {
		for part := range 4 {
			t.Run(fmt.Sprintf("%s %d", init, part+1), func(t *testing.T) {
				t.Parallel()
				for range 13 {
					run, log := watch(t, imageScratch, withInit(init), withArgs("/hello", "exit", "3"))
					run.outcome(log, 3)
					inOrder(t, log, run.ID)
				}
			})
		}
	}
}

// An exec that is started when the command ends either runs to its own end or is refused.
func TestB31ExecAtTheEnd(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		for i := range 4 {
			run, log := watch(t, v.image, v.with(withStdin(), withArgs("sh", "-c", ready+"read line; exit 6"))...)
			run.WaitOutput("ready\n", runLimit)
			var execs sync.WaitGroup
			for j := range 4 {
				execs.Go(func() {
					time.Sleep(time.Duration(i*j) * 10 * time.Millisecond)
					ctx, cancel := private.within(callLimit)
					defer cancel()
					_ = oneExec(ctx, run.Task, fmt.Sprintf("e%d", j), execSpec("true"))
					if ctx.Err() != nil {
						t.Error("an exec hangs")
					}
				})
			}
			run.CloseStdin()
			run.Wait(runLimit)
			execs.Wait()
			run.outcomeOf(log, 6)
			inOrder(t, log, run.ID)
		}
	})
}

// outcomeOf is outcome for a task that was waited for.
func (r *task) outcomeOf(log *eventLog, want int) {
	r.t.Helper()
	if code := r.Delete(); code != want {
		r.t.Errorf("delete reports %d, want %d", code, want)
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
}

// Whatever process of the command's holds its output open goes with the container.
func TestB32HeldOutput(t *testing.T) {
	t.Parallel()
	const script = "sleep 1000 & echo out; echo err >&2; exit 3"
	hostPIDs := withSpec(oci.WithHostNamespace(specs.PIDNamespace))
	for _, c := range []struct {
		variant
		name string
		opts []taskOption
	}{
		{plain, "", nil},
		{dumbInit, "", nil},
		{systemdBookworm, "", nil},
		{plain, "host pids", []taskOption{hostPIDs}},
		{dumbInit, "host pids", []taskOption{hostPIDs}},
		{plain, "terminal", []taskOption{withTerminal()}},
		{dumbInit, "terminal", []taskOption{withTerminal()}},
		{systemdBookworm, "terminal", []taskOption{withTerminal()}},
	} {
		t.Run(c.variant.name+" "+c.name, func(t *testing.T) {
			t.Parallel()
			run, log := watch(t, c.image, c.with(append(c.opts, withArgs("sh", "-c", script))...)...)
			run.outcome(log, 3)
			want, wantErr := "out\n", "err\n"
			if c.name == "terminal" {
				want, wantErr = "out\r\nerr\r\n", ""
			}
			if run.Stdout.String() != want || run.Stderr.String() != wantErr {
				t.Errorf("stdout %q, stderr %q", run.Stdout, run.Stderr)
			}
		})
	}
}

// Nobody takes the output any more: the command can be stopped, and the task deleted.
func TestB32ReaderGone(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		for _, terminal := range []bool{false, true} {
			t.Run(map[bool]string{false: "fifo", true: "terminal"}[terminal], func(t *testing.T) {
				t.Parallel()
				opts := v.with(withArgs("sh", "-c", "trap 'exit 4' TERM; while :; do echo 0123456789012345678901234567890123456789; done"))
				if terminal {
					opts = append(opts, withSpec(oci.WithTTY))
				}
				streams := newUnread(t, terminal)
				run := newTask(t, v.image, opts...)
				run.replace(streams.create)
				run.Start()
				streams.filled(t)
				// A shell does not come to its trap while its echo is stuck.
				run.Kill(syscall.SIGTERM)
				ctx, cancel := private.within(callLimit)
				defer cancel()
				if err := run.Task.Kill(ctx, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
					t.Errorf("kill: %v", err)
				}
				run.Wait(runLimit)
				run.Delete()
				if len(streams.now(t, streams.stdout)) == 0 {
					t.Error("the output is lost")
				}
			})
		}
	})
}

// filled waits until nothing more goes into stdout.
func (u *unread) filled(t *testing.T) {
	t.Helper()
	last := -1
	eventually(t, runLimit, "a full fifo", func() error {
		size := 0
		raw, err := u.stdout.SyscallConn()
		if err != nil {
			return err
		}
		var ioctl error
		if err := raw.Control(func(fd uintptr) { size, ioctl = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || ioctl != nil {
			return errors.Join(err, ioctl)
		}
		if size == 0 || size != last {
			last = size
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("%d bytes", size)
		}
		return nil
	})
}

func TestB32NeverStarted(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		t.Run("deleted", func(t *testing.T) {
			t.Parallel()
			run := newTask(t, v.image, v.with(withArgs("sleep", "1000"))...)
			ctx, cancel := private.within(callLimit)
			defer cancel()
			// The client's own Delete would not ask.
			if _, err := private.Client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: run.ID}); err != nil {
				t.Errorf("delete: %v", err)
			}
			run.Task.IO().Cancel()
			run.Task.IO().Close()
			run.Task = nil
		})
		t.Run("killed", func(t *testing.T) {
			t.Parallel()
			run, log := watchCreated(t, v.image, v.with(withArgs("sleep", "1000"))...)
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
		})
		t.Run("start fails", func(t *testing.T) {
			t.Parallel()
			run, log := watchCreated(t, v.image, v.with(withArgs("sleep", "1000"))...)
			if err := syscall.Kill(int(run.Task.Pid()), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := private.within(callLimit)
			defer cancel()
			if err := run.Task.Start(ctx); err == nil {
				t.Error("it was started")
			}
			run.outcome(log, 137)
		})
	})
}

// watchCreated is watch without the start.
func watchCreated(t *testing.T, image string, opts ...taskOption) (*task, *eventLog) {
	t.Helper()
	id := newID(t)
	log := subscribe(t, id)
	return newTask(t, image, append([]taskOption{withID(id)}, opts...)...), log
}

// zombies lists the defunct children of some processes.
func zombies(t *testing.T, parents ...int) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		state, parent, err := procState(pid)
		if err != nil || state != "Z" {
			continue
		}
		for _, p := range parents {
			if parent == p {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				found = append(found, fmt.Sprintf("%d %s of %d", pid, strings.TrimSpace(string(name)), p))
			}
		}
	}
	return found
}

func TestB33Zombies(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		const rounds = 60
		// The command itself leaves a grandchild now and then.
		script := ready + "while :; do sh -c 'sleep 0.1 & sleep 0.2 &'; sleep 0.5; done"
		run := startTask(t, v.image, v.with(withArgs("sh", "-c", script))...)
		run.WaitOutput("ready\n", runLimit)
		ctx, cancel := private.within(3 * runLimit)
		defer cancel()
		var workers sync.WaitGroup
		for worker := range 2 {
			workers.Go(func() {
				for i := range rounds / 2 {
					if err := oneExec(ctx, run.Task, fmt.Sprintf("left%d-%d", worker, i), shell("sleep 0.3 & exit 0")); err != nil {
						t.Errorf("exec: %v", err)
						return
					}
					if err := timedOut(ctx, run.Task, fmt.Sprintf("late%d-%d", worker, i), shell("sleep 0.2 & sleep 1000")); err != nil {
						t.Errorf("exec that is killed: %v", err)
						return
					}
				}
			})
		}
		workers.Wait()
		parents := []int{run.shimPID()}
		if v != plain {
			// Without an init pid 1 is the command, and reaps what it wants to.
			parents = append(parents, int(run.Task.Pid()))
		}
		eventually(t, runLimit, "the end of the zombies", func() error {
			if left := zombies(t, parents...); len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

// timedOut starts an exec and kills it, as the kubelet does with a probe that takes too long.
func timedOut(ctx context.Context, task containerd.Task, id string, process *specs.Process) error {
	exec, exit, err := startExec(ctx, task, id, process, cio.NullIO)
	if err != nil {
		return err
	}
	if err := exec.Kill(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	status := <-exit
	if err := status.Error(); err != nil {
		return err
	}
	if status.ExitCode() != 137 {
		return fmt.Errorf("exit status %d, want 137", status.ExitCode())
	}
	_, err = exec.Delete(ctx)
	return err
}

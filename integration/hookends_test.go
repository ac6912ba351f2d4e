package integration

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
)

// Each poststop hook runs exactly once in every way that a container can end.

// noteEnd is a hook that fails after it has noted what it knows.
func noteEnd(name string) hook {
	return script(`echo "`+name+` $RICH_EXIT_CODE $RICH_EXIT_SIGNAL $RICH_EXIT_REASON" >>/notes/log`, "exit 1")
}

// ended waits for the notes of the two hooks first and second, and tells what they are about the end.
func (n notes) ended(want string) {
	n.t.Helper()
	eventually(n.t, runLimit, "the poststop hooks", func() error {
		if !strings.Contains(n.read("log"), "second") {
			return errors.New("they have not run")
		}
		return nil
	})
	if got := regexp.MustCompile(" +").ReplaceAllString(n.read("log"), " "); got != "first "+want+"\nsecond "+want+"\n" {
		n.t.Errorf("the hooks noted %q, want %q each once", got, want)
	}
}

func twoHooks(t testing.TB) taskOption {
	return withHookOption(t, "poststop", noteEnd("first"), noteEnd("second"))
}

func TestB28Ends(t *testing.T) {
	t.Parallel()
	trap := "trap 'exit 5' TERM; " + ready + idle
	all := []variant{systemdBookworm, dumbInit, plain, {"busybox", imageInitAlpine, "sbin-init"}}
	full := []variant{all[0], all[3]}
	for _, c := range []struct {
		name     string
		variants []variant
		cmd      string
		end      func(run *task) // once the command has printed "ready"
		code     int
		want     string
		opts     []taskOption
	}{
		{"exit", all, "exit 3", nil, 3, "3 exit", nil},
		{"crash", full, "kill -SEGV $$", nil, 139, "139 SIGSEGV signal", nil},
		{"crash below dumb-init", []variant{dumbInit}, "kill -SEGV $$", nil, 139, "139 SIGSEGV signal", nil},
		{"OOM", []variant{systemdBookworm, dumbInit, plain}, "exec tail /dev/zero", nil, 137, "137 SIGKILL oom", []taskOption{withSpec(oci.WithMemoryLimit(96 << 20))}},
		{"not found", []variant{systemdBookworm, dumbInit}, "", nil, 127, "127 exit", []taskOption{withArgs("/no/such/program")}},
		{"TERM", all, trap, func(run *task) { run.Kill(syscall.SIGTERM) }, 5, "5 stop", nil},
		{"KILL", all, trap, func(run *task) { run.Kill(syscall.SIGKILL) }, 137, "137 SIGKILL kill", nil},
		{"death of pid 1", all, trap, func(run *task) { _ = syscall.Kill(int(run.Task.Pid()), syscall.SIGKILL) }, 137, "137 SIGKILL signal", nil},
		{"poweroff inside", full, trap, func(run *task) { _, _ = run.TryExec(asRoot, "poweroff") }, 5, "5 halt", nil},
		{"reboot inside", full[:1], trap, func(run *task) { _, _ = run.TryExec(asRoot, "reboot") }, 133, "133 reboot", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, c.variants, func(t *testing.T, v variant) {
				n := newNotes(t)
				run, log := watch(t, v.image, v.with(append([]taskOption{n.mount(), twoHooks(t), withArgs("sh", "-c", c.cmd)}, c.opts...)...)...)
				if c.end != nil {
					run.WaitOutput("ready", runLimit)
					if v == systemdBookworm {
						run.booted()
					}
					c.end(run)
				}
				log.Wait(runtime.TaskExitEventTopic, runLimit)
				n.ended(c.want) // before the end was announced
				run.outcome(log, c.code)
				n.ended(c.want)
			})
		})
	}
}

// Without a start there is nothing to clean up after.
func TestB28NeverStarted(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
		n := newNotes(t)
		run := newTask(t, v.image, v.with(n.mount(), twoHooks(t), withHookOption(t, "prestart", script("echo prestart >>/notes/log")), withArgs("true"))...)
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
		n.want("log", "")
	})
}

// waitNote waits until a file has been made in the notes.
func (n notes) waitNote(name string) {
	n.t.Helper()
	eventually(n.t, runLimit, "note "+name, func() error {
		_, err := os.Stat(n.dir + "/" + name)
		return err
	})
}

// A stop while prestart hooks run ends them; the command is not started.
func TestHookStopInPrestart(t *testing.T) {
	t.Parallel()
	for signal, reason := range map[syscall.Signal]string{syscall.SIGTERM: "SIGTERM stop", syscall.SIGKILL: "SIGKILL kill"} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			n := newNotes(t)
			waits := script("touch /notes/begun", "sleep 3600")
			waits.Timeout = 600
			run, log := watch(t, imageBookworm, withInit("systemd"), n.mount(), twoHooks(t),
				withHookOption(t, "prestart", waits, script("touch /notes/next")), withArgs("touch", "/notes/cmd"))
			n.waitNote("begun")
			run.Kill(signal)
			code := 128 + int(signal)
			run.outcome(log, code)
			n.ended(fmt.Sprintf("%d %s", code, reason))
			for _, name := range []string{"next", "cmd"} {
				if _, err := os.Stat(n.dir + "/" + name); err == nil {
					t.Errorf("%s was made", name)
				}
			}
			if got := run.Stderr.String(); got != "" {
				t.Errorf("stderr is %q", got)
			}
		})
	}
}

// SIGKILL while poststop hooks run ends them, and the container.
func TestHookKillInPoststop(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
		n := newNotes(t)
		waits := script("echo begun >>/notes/log", "touch /notes/begun", "sleep 3600")
		waits.Timeout = 600
		run, log := watch(t, v.image, v.with(n.mount(), withHookOption(t, "poststop", waits, noteEnd("second")),
			withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
		run.WaitOutput("ready", runLimit)
		run.Kill(syscall.SIGTERM)
		n.waitNote("begun")
		run.running()
		run.Kill(syscall.SIGKILL)
		run.outcome(log, 5)
		n.want("log", "begun\n")
	})
}

// A restart of the service is not the start of the container.
func TestHookServiceRestart(t *testing.T) {
	t.Parallel()
	n := newNotes(t)
	run, log := watch(t, imageBookworm, withInit("systemd"), n.mount(), withHookOption(t, "poststop", script("echo poststop >>/notes/log")),
		withHookOption(t, "prestart", script("echo prestart >>/notes/log")), withArgs("sh", "-c", "trap 'exit 5' TERM; echo cmd >>/notes/log; "+ready+idle))
	run.WaitOutput("ready", runLimit)
	run.booted()
	if got := run.Exec("systemctl", "restart", "rich-app"); got.Code != 0 {
		t.Fatalf("restart: %+v", got)
	}
	run.WaitOutput("ready\nready", runLimit)
	n.want("log", "prestart\ncmd\ncmd\n")
	run.Kill(syscall.SIGTERM)
	run.outcome(log, 5)
	n.want("log", "prestart\ncmd\ncmd\npoststop\n")
}

// killedShim waits until containerd has cleaned up after a shim that was killed.
func (r *task) killedShim(log *eventLog) *events.TaskExit {
	r.t.Helper()
	if err := syscall.Kill(r.shimPID(), syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
	exit := log.Wait(runtime.TaskExitEventTopic, 0).(*events.TaskExit)
	r.forget()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	if _, err := r.Task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		r.t.Errorf("delete: %v", err)
	}
	return exit
}

// forget closes the streams of a task that containerd has deleted by itself.
func (r *task) forget() {
	r.Task.IO().Cancel()
	r.Task.IO().Close()
}

// A shim that is killed leaves the hooks to whoever cleans up after it. Not parallel: containerd gives that 5 s.
func TestB28ShimKilled(t *testing.T) {
	variants := []variant{systemdBookworm, dumbInit}
	t.Run("while the command runs", func(t *testing.T) {
		t.Parallel()
		forEach(t, variants, func(t *testing.T, v variant) {
			n := newNotes(t)
			run, log := watch(t, v.image, v.with(n.mount(), twoHooks(t), withArgs("sh", "-c", ready+idle))...)
			run.WaitOutput("ready", runLimit)
			if exit := run.killedShim(log); exit.ExitStatus != 137 {
				t.Errorf("exit status %d", exit.ExitStatus)
			}
			n.ended("137 SIGKILL lost")
		})
	})
	t.Run("in a prestart hook", func(t *testing.T) {
		t.Parallel()
		n := newNotes(t)
		waits := script("touch /notes/begun", "sleep 3600")
		waits.Timeout = 600
		run, log := watch(t, imageBookworm, withInit("systemd"), n.mount(), twoHooks(t), withHookOption(t, "prestart", waits), withArgs("touch", "/notes/cmd"))
		n.waitNote("begun")
		run.killedShim(log)
		n.ended("137 SIGKILL lost")
	})
	t.Run("in a poststop hook", func(t *testing.T) {
		t.Parallel()
		forEach(t, variants, func(t *testing.T, v variant) {
			n := newNotes(t)
			waits := script("echo begun >>/notes/log", "touch /notes/begun", "sleep 3600")
			waits.Timeout = 600
			run, log := watch(t, v.image, v.with(n.mount(), withHookOption(t, "poststop", waits, noteEnd("second")),
				withArgs("sh", "-c", "exit 3"))...)
			n.waitNote("begun")
			exit := run.killedShim(log)
			if want := uint32(3); v == dumbInit && exit.ExitStatus != want {
				t.Errorf("exit status %d, want %d", exit.ExitStatus, want)
			}
			// The first has begun before, and so is not run again.
			n.want("log", "begun\nsecond 3  exit\n")
		})
	})
}

// No hook of a shim that was killed runs longer than containerd waits for the clean-up. Not parallel: 1.5 s are left for
// the rest of it.
func TestB28ShimKilledHookHangs(t *testing.T) {
	n := newNotes(t)
	waits := script("echo begun >>/notes/log", "sleep 3600")
	waits.Timeout = 600
	run, log := watch(t, imageBookworm, withInit("dumb-init"), n.mount(), withHookOption(t, "poststop", waits, noteEnd("second")),
		withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	run.killedShim(log)
	n.want("log", "begun\n")
	if _, err := os.Stat(run.bundle()); !os.IsNotExist(err) {
		t.Errorf("the bundle: %v", err)
	}
}

// A restart of containerd changes nothing, whenever it comes. Not parallel: it is the daemon of all tests.
func TestB28DaemonRestart(t *testing.T) {
	compare := snapshotHost(t)
	type started struct {
		run  *task
		n    notes
		want string
	}
	var all []started
	for _, v := range []variant{systemdBookworm, dumbInit} {
		n := newNotes(t)
		run := startTask(t, v.image, v.with(n.mount(), twoHooks(t),
			withArgs("sh", "-c", "touch /notes/ready; while ! test -e /notes/go; do sleep 0.1; done; exit 3"))...)
		n.waitNote("ready")
		all = append(all, started{run, n, "3 exit"})
	}
	shims := []int{all[0].run.shimPID(), all[1].run.shimPID()}
	// One ends while containerd is away, the other one's shim is killed.
	private.crash(t)
	if err := os.WriteFile(all[0].n.dir+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	all[0].n.ended(all[0].want)
	if err := syscall.Kill(shims[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	private.resume(t)
	all[1].want = "137 SIGKILL lost"
	for _, s := range all {
		ctx, cancel := private.within(callLimit)
		defer cancel()
		eventually(t, runLimit, "the end of the task", func() error {
			status, err := s.run.Task.Delete(ctx)
			if errdefs.IsNotFound(err) {
				s.run.forget()
				return nil
			}
			if err == nil && status.ExitCode() != 3 {
				t.Errorf("exit status %d", status.ExitCode())
			}
			return err
		})
		s.n.ended(s.want)
		if err := s.run.Container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
			t.Error(err)
		}
		s.run.deleted = true
	}
	compare()
}

// A container that stops all its processes again and again stops also what becomes a hook, before libcontainer is done
// with it. Nothing takes longer for that than the timeouts say.
func TestHookStopped(t *testing.T) {
	t.Parallel()
	const stopAll = "while :; do kill -STOP -1; sleep 0.001; done"
	slow := func(h hook) hook { h.Timeout = 2; return h }
	hostile, harmless := slow(script("setsid sh -c 'sleep 0.02; "+stopAll+"' >/dev/null 2>&1 & exit 0")), slow(script("true"))
	const bound = 25 * time.Second // two timeouts, two pauses for what does not die, that of the halt, and a busy host
	within := func(t *testing.T, began time.Time) {
		t.Helper()
		if took := time.Since(began); took > patience(bound) {
			t.Errorf("it took %v", took)
		}
	}
	t.Run("prestart", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
			run := newTask(t, v.image, v.with(withRich("halt-timeout", "5s"), withHookOption(t, "prestart", hostile, harmless, harmless, slow(script("sleep 1"))), withArgs("true"))...)
			log, began := subscribe(t, run.ID), time.Now()
			ctx, cancel := private.within(callLimit)
			defer cancel()
			err := run.Task.Start(ctx)
			if full := v == systemdBookworm; full != (err == nil) || !full && !strings.Contains(err.Error(), "2s") {
				t.Errorf("start: %v", err)
			}
			code := run.Wait(runLimit)
			if v == systemdBookworm && code != 125 {
				t.Errorf("exit status %d", code)
			}
			within(t, began)
			run.Delete()
			log.Wait(runtime.TaskDeleteEventTopic, runLimit)
		})
	})
	t.Run("poststop", func(t *testing.T) {
		t.Parallel()
		n := newNotes(t)
		run, log := watch(t, imageBookworm, withInit("systemd"), n.mount(), withRich("halt-timeout", "5s"),
			withHookOption(t, "poststop", hostile, harmless, harmless), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))
		run.WaitOutput("ready", runLimit)
		run.booted()
		began := time.Now()
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
		within(t, began)
	})
	// The command itself does it, and the hooks run when it is gone.
	for signal, code := range map[syscall.Signal]int{syscall.SIGTERM: 5, syscall.SIGKILL: 137} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
				if v == systemdBookworm && signal == syscall.SIGTERM {
					t.Skip("the launcher is stopped as well and cannot tell the command")
				}
				n := newNotes(t)
				run, log := watch(t, v.image, v.with(n.mount(), withRich("halt-timeout", "5s"), withHookOption(t, "poststop", slow(noteEnd("first")), slow(noteEnd("second"))),
					withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+stopAll))...)
				run.WaitOutput("ready", runLimit)
				began := time.Now()
				run.Kill(signal)
				run.outcome(log, code)
				within(t, began)
				if !strings.Contains(n.read("log"), "second") {
					t.Errorf("the hooks noted %q", n.read("log"))
				}
			})
		})
	}
}

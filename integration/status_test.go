package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The field cases about how a container ends, and about the signals it is sent.

// ready prints a word when the command runs.
const ready = "echo ready; "

// idle keeps a shell waiting in a way that lets its traps run at once.
const idle = "while :; do sleep 1000 & wait $!; done"

// startIdle starts a command that does nothing more, and waits until it runs.
func startIdle(t testing.TB, v variant) *task {
	t.Helper()
	run := startTask(t, v.image, v.with(withArgs("sh", "-c", ready+idle))...)
	run.WaitOutput("ready\n", runLimit)
	return run
}

// byOperator is for an exec by an operator, whoever the command is.
func byOperator(p *specs.Process) { p.User = specs.User{} }

// booted waits until systemd has started everything, and returns its state.
func (r *task) booted() string {
	r.t.Helper()
	var state string
	eventually(r.t, runLimit, "the end of the boot", func() error {
		got := r.ExecAs(byOperator, "systemctl", "is-system-running", "--wait")
		if state = strings.TrimSpace(got.Stdout); state == "" || state == "offline" || state == "unknown" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	return state
}

func TestB8Status(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"exit 42", []string{"sh", "-c", "exit 42"}, 42},
		{"SEGV", []string{"sh", "-c", "kill -SEGV $$"}, 139},
		{"true", []string{"true"}, 0},
		{"daemon", []string{probePath, "fork-exit", "3"}, 3},
		{"255", []string{probePath, "exit", "255"}, 255},
		{"RT signal", []string{probePath, "kill", "RTMIN+3"}, 128 + 37},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			variants := []variant{dumbInit, systemdBookworm}
			if c.want == 42 || c.want == 139 {
				variants = everyInit
			}
			forEach(t, variants, func(t *testing.T, v variant) {
				run, log := watch(t, v.image, v.with(withProbe(), withArgs(c.args...))...)
				run.outcome(log, c.want)
				if run.Stdout.String()+run.Stderr.String() != "" {
					t.Errorf("output %q %q", run.Stdout, run.Stderr)
				}
			})
		})
	}

	// What cannot be executed is named where the command's own messages would be.
	for _, c := range []struct {
		name    string
		program string
		want    int
		options []taskOption
	}{
		{"not found", "/no/such/program", 127, nil},
		{"not in PATH", "no-such-program", 127, nil},
		{"not executable", "/etc/passwd", 126, nil},
		{"folder", "/etc", 126, nil},
		{"not a program", "/opt/data", 126, []taskOption{withFile("/opt/data", "\x00\x01\x02", 0o755)}},
		{"no interpreter", "/opt/script", 127, []taskOption{withFile("/opt/script", "#!/no/such/shell\n", 0o755)}},
		{"not for the user", "/opt/secret", 126, []taskOption{withFile("/opt/secret", "#!/bin/sh\n", 0o700), withUser(1234, 1234), withSpec(oci.WithDroppedCapabilities([]string{"CAP_DAC_OVERRIDE"}))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
				run, log := watch(t, v.image, append(v.with(withArgs(c.program, "arg")), c.options...)...)
				run.outcome(log, c.want)
				if got := run.Stderr.String(); !strings.Contains(got, c.program) || strings.Count(got, "\n") != 1 {
					t.Errorf("stderr is %q, want one line with %s", got, c.program)
				}
				if run.Stdout.String() != "" {
					t.Errorf("stdout is %q", run.Stdout)
				}
			})
		})
	}

	t.Run("KILL", func(t *testing.T) {
		t.Parallel()
		forEach(t, everyInit, func(t *testing.T, v variant) {
			run, log := watch(t, v.image, v.with(withArgs("sh", "-c", ready+idle))...)
			run.WaitOutput("ready", runLimit)
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
		})
	})
	t.Run("KILL before start", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
			id := newID(t)
			log := subscribe(t, id)
			run := newTask(t, v.image, v.with(withID(id), withArgs("true"))...)
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
		})
	})

	// An operator inside the container.
	inside := func(t *testing.T, name, cmd string, want int, operator ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
				if v == systemdSid && name != "poweroff" && name != "reboot" {
					t.Skip("one of the kind is enough")
				}
				run, log := watch(t, v.image, v.with(withArgs("sh", "-c", cmd+ready+idle))...)
				run.WaitOutput("ready", runLimit)
				run.booted()
				if got := run.Exec(operator...); got.Code != 0 && got.Code != 137 {
					t.Errorf("%q: %+v", operator, got)
				}
				run.outcome(log, want)
			})
		})
	}
	inside(t, "poweroff", "trap 'exit 5' TERM; ", 5, "systemctl", "poweroff")
	inside(t, "poweroff ends the command", "", 143, "systemctl", "poweroff")
	inside(t, "halt", "trap 'exit 5' TERM; ", 5, "systemctl", "halt")
	inside(t, "exit", "trap 'exit 5' TERM; ", 5, "systemctl", "exit", "9")
	inside(t, "shutdown", "trap 'exit 0' TERM; ", 0, "shutdown", "-h", "now")
	inside(t, "reboot", "trap 'exit 5' TERM; ", 133, "systemctl", "reboot")
	inside(t, "shutdown to reboot", "", 133, "shutdown", "-r", "now")
	// The end of the first of them may be the end of the others before they are killed.
	inside(t, "kill the command", "", 137, "sh", "-c", "kill -9 $(cat /sys/fs/cgroup/system.slice/rich-app.service/cgroup.procs) || :")
	inside(t, "kill the service", "", 137, "systemctl", "kill", "--signal=KILL", "rich-app")
	inside(t, "SEGV to the command", "", 139, "sh", "-c", "kill -SEGV $(systemctl show -P MainPID rich-app | xargs ps -o pid= --ppid)")

	t.Run("restart of the service", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			run, log := watch(t, v.image, v.with(withArgs("sh", "-c", `trap 'echo bye >&2; exit 5' TERM; echo "pid $$"; `+idle))...)
			run.WaitOutput("pid ", runLimit)
			run.booted()
			first := run.Stdout.String()
			started := func(n int) {
				t.Helper()
				eventually(t, runLimit, fmt.Sprintf("start %d", n), func() error {
					if out := run.Stdout.String(); strings.Count(out, "pid ") != n || !strings.HasSuffix(out, "\n") {
						return fmt.Errorf("stdout is %q", out)
					}
					return nil
				})
			}
			for n := range 2 {
				started(n + 1)
				if got := run.Exec("systemctl", "restart", "rich-app"); got.Code != 0 {
					t.Fatalf("restart: %+v", got)
				}
			}
			started(3)
			if lines := strings.Split(run.Stdout.String(), "\n"); lines[0]+"\n" != first || lines[0] == lines[1] {
				t.Errorf("the commands were %q", lines)
			}
			run.running()

			if got := run.Exec("systemctl", "stop", "rich-app"); got.Code != 0 {
				t.Fatalf("stop: %+v", got)
			}
			if got := run.Exec("systemctl", "is-active", "rich-app"); strings.TrimSpace(got.Stdout) == "active" {
				t.Errorf("the service is %+v", got)
			}
			run.running()
			if got := run.Exec("systemctl", "start", "rich-app"); got.Code != 0 {
				t.Fatalf("start: %+v", got)
			}
			started(4)
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 5)
			if got := run.Stderr.String(); got != strings.Repeat("bye\n", 4) {
				t.Errorf("stderr is %q", got)
			}
		})
	})
	// Also while the launcher or the command has only just been started.
	t.Run("restarts without a break", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", "trap 'exit 5' TERM; echo \"pid $$\"; "+idle))
		run.booted()
		got := run.Exec("sh", "-c", "i=0; while [ $i -lt 20 ]; do systemctl reset-failed rich-app; systemctl restart rich-app || exit; i=$((i+1)); done; systemctl show -P MainPID rich-app")
		if got.Code != 0 {
			t.Fatalf("restart: %+v", got)
		}
		run.running()
		eventually(t, runLimit, "the last command", func() error {
			lines := strings.Fields(run.Stdout.String())
			if got := run.Exec("ps", "-o", "pid=", "--ppid", strings.TrimSpace(got.Stdout)); len(lines) == 0 || strings.TrimSpace(got.Stdout) != lines[len(lines)-1] {
				return fmt.Errorf("%+v %q", got, lines)
			}
			return nil
		})
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
	})
	t.Run("stop of a stopped service", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))
		run.WaitOutput("ready", runLimit)
		run.booted()
		if got := run.Exec("systemctl", "stop", "rich-app"); got.Code != 0 {
			t.Fatalf("stop: %+v", got)
		}
		run.running()
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
	})
}

// trapTask starts the probe, which notes the signals it gets in a file and ends with 5 after TERM.
func trapTask(t *testing.T, v variant, opts ...taskOption) (run *task, log *eventLog, signals func() []string) {
	t.Helper()
	dir := t.TempDir()
	run, log = watch(t, v.image, v.with(append([]taskOption{
		withProbe("trap", "/data/bye", "0", "5"), withBind(dir, "/data", "rbind", "rw"),
	}, opts...)...)...)
	run.WaitOutput("ready", runLimit)
	return run, log, func() []string {
		content, err := os.ReadFile(filepath.Join(dir, "bye"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(content))
	}
}

func TestB10Stop(t *testing.T) {
	t.Parallel()
	all := []variant{plain, dumbInit, systemdBookworm, systemdSid}
	for _, c := range []struct {
		name string
		kill func(t *testing.T, r *task)
	}{
		{"TERM", func(_ *testing.T, r *task) { r.Kill(syscall.SIGTERM) }},
		{"all", func(_ *testing.T, r *task) { r.Kill(syscall.SIGTERM, containerd.WithKillAll) }},
		{"ctr SIGTERM", func(t *testing.T, r *task) { ctrKill(t, r, "SIGTERM") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, all, func(t *testing.T, v variant) {
				if v == systemdSid && c.name != "TERM" {
					t.Skip("one of the kind is enough")
				}
				run, log, signals := trapTask(t, v)
				c.kill(t, run)
				run.outcome(log, 5)
				if got := signals(); !slices.Equal(got, []string{"TERM"}) {
					t.Errorf("the command got %v", got)
				}
			})
		})
	}
	// What halts systemd asks for an orderly stop there, and is a signal like any other elsewhere.
	for _, c := range []struct {
		name string
		kill func(t *testing.T, r *task)
	}{
		{"37", func(_ *testing.T, r *task) { r.Kill(37) }},
		{"ctr SIGRTMIN+3", func(t *testing.T, r *task) { ctrKill(t, r, "SIGRTMIN+3") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, all, func(t *testing.T, v variant) {
				run, log, signals := trapTask(t, v)
				c.kill(t, run)
				want := []string{"TERM"}
				if v.init != "systemd" {
					want = []string{"RTMIN+3", "TERM"}
					eventually(t, runLimit, "the signal", func() error {
						if got := signals(); len(got) == 0 {
							return fmt.Errorf("got %v", got)
						}
						return nil
					})
					run.Kill(syscall.SIGTERM)
				}
				run.outcome(log, 5)
				if got := signals(); !slices.Equal(got, want) {
					t.Errorf("the command got %v, want %v", got, want)
				}
			})
		})
	}
	// Signals for the command do nothing to the init.
	t.Run("for the command", func(t *testing.T) {
		t.Parallel()
		forEach(t, all, func(t *testing.T, v variant) {
			run, log, signals := trapTask(t, v)
			if v.init == "systemd" {
				run.booted()
			}
			want := []string{}
			for signal, name := range map[syscall.Signal]string{
				0: "", syscall.SIGHUP: "HUP", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2", syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT",
				syscall.SIGWINCH: "WINCH", syscall.SIGPWR: "PWR", 34 + 4: "RTMIN+4", 34 + 5: "RTMIN+5", 34 + 15: "RTMIN+15",
			} {
				run.Kill(signal)
				if name != "" {
					want = append(want, name)
				}
				eventually(t, runLimit, "signal "+name, func() error {
					if got := signals(); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
						return fmt.Errorf("got %v, want %v", got, want)
					}
					return nil
				})
				run.running()
			}
			if v.init == "systemd" {
				if got := run.Exec("systemctl", "is-system-running"); got.Stdout != "running\n" {
					t.Errorf("systemd is %+v", got)
				}
			}
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 5)
		})
	})
	// The image's own stop signal is the one that the command gets.
	for name, option := range map[string]taskOption{
		"stop signal by option": withRich("stop-signal", "SIGUSR1"),
		"stop signal of image":  withAnnotation("org.opencontainers.image.stopSignal", "SIGUSR1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
				run, log := watch(t, v.image, v.with(option, withArgs("sh", "-c", "trap 'echo usr1; exit 6' USR1; "+ready+idle))...)
				run.WaitOutput("ready", runLimit)
				run.Kill(syscall.SIGUSR1)
				run.outcome(log, 6)
				if got := run.Stdout.String(); got != "ready\nusr1\n" {
					t.Errorf("stdout is %q", got)
				}
			})
		})
	}
	// The image's unit is still busy: the command has not run and will not.
	t.Run("during boot", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			dir := t.TempDir()
			run, log := watch(t, v.image, v.with(withArgs("sh", "-c", "touch /ctl/ran"), withBind(dir, "/ctl", "rbind", "rw"),
				withFile("/etc/systemd/system/slow.service", "[Unit]\nDefaultDependencies=no\nBefore=basic.target\nConflicts=shutdown.target\n"+
					"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'touch /ctl/booting; exec sleep infinity'\n", 0o644),
				withWants("basic.target", "slow.service"))...)
			eventually(t, runLimit, "the boot", func() error {
				_, err := os.Stat(filepath.Join(dir, "booting"))
				return err
			})
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 143)
			if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
				t.Error("the command has run")
			}
		})
	})
	// Whatever pid 1 is doing at that moment.
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		for i := range 3 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sleep", "infinity"))
				run.Kill(syscall.SIGTERM)
				run.outcome(log, 143)
			})
		}
	})
	t.Run("before start", func(t *testing.T) {
		t.Parallel()
		id := newID(t)
		log := subscribe(t, id)
		run := newTask(t, imageBookworm, withID(id), withInit("systemd"), withArgs("true"))
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 143)
	})
	t.Run("ignored", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{plain, dumbInit, systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			run, log := watch(t, v.image, v.with(withArgs("sh", "-c", "trap 'echo ignored' TERM; "+ready+idle))...)
			run.WaitOutput("ready", runLimit)
			for n := range 2 {
				run.Kill(syscall.SIGTERM)
				eventually(t, runLimit, "the signal", func() error {
					if got := strings.Count(run.Stdout.String(), "ignored\n"); got != n+1 {
						return fmt.Errorf("%d times", got)
					}
					return nil
				})
				run.running()
			}
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
		})
	})
	// A service that does not stop cannot hold up the container for longer than the limit, nor change its status.
	t.Run("stuck service", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withRich("halt-timeout", "1s"), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle),
			withUnit("stuck.service", "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; echo stuck; while :; do sleep 1000; done'\n"))
		run.WaitOutput("ready", runLimit)
		run.booted()
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
	})
}

// ctrKill sends a signal as a user does.
func ctrKill(t *testing.T, r *task, signal string) {
	t.Helper()
	out, err := exec.Command(buildPath("tools/ctr"), "--address", private.Address(), "--namespace", testNamespace,
		"tasks", "kill", "--signal", signal, r.ID).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr: %v\n%s", err, out)
	}
}

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// appState is what the container and the host can see of the command.
type appState struct {
	Running   bool       `json:"running"`
	Starts    int        `json:"starts"`
	Status    *int       `json:"status"`
	EndedAt   *time.Time `json:"endedAt"`
	RestartAt *time.Time `json:"restartAt"`
}

// app reads the state of the command on the host.
func (r *task) app() (state appState, err error) {
	data, err := os.ReadFile(filepath.Join(r.runDir(), "app.json"))
	if errors.Is(err, os.ErrNotExist) {
		return state, nil // it has not been started
	}
	if err != nil {
		return state, err
	}
	return state, json.Unmarshal(data, &state)
}

// waitApp waits until the state of the command is as wanted.
func (r *task) waitApp(what string, check func(appState) bool) appState {
	r.t.Helper()
	var state appState
	err := poll(initLimit, func() (err error) {
		if state, err = r.app(); err == nil && !check(state) {
			err = fmt.Errorf("the state is %+v", state)
		}
		return err
	})
	if err != nil {
		r.fatal("%s: %v", what, err)
	}
	return state
}

func TestOnExitRestart(t *testing.T) {
	t.Parallel()
	// It notes its starts in a file, as its output may have a terminal in between.
	const cmd = `n=$(($(cat /data/n) + 1)); echo $n >/data/n; echo "run $n"; [ $n -ge 3 ] || exit 7; trap 'exit 5' TERM; ` + ready + idle
	for _, v := range matrixInits {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "n"), []byte("0\n"), 0o666), os.Chmod(filepath.Join(dir, "n"), 0o666)); err != nil {
				t.Fatal(err)
			}
			run, log := watch(t, v.image, withInit(v.init), withRich("on-exit", "restart"), withUser(1234, 5678, 4321), withBind(dir, "/data", "rbind", "rw"),
				withArgs("sh", "-c", cmd))
			run.WaitOutput("ready", initLimit)
			state, err := run.app()
			if err != nil || !state.Running || state.Starts != 3 || state.Status == nil || *state.Status != 7 || state.EndedAt == nil || state.RestartAt != nil {
				t.Errorf("the state is %+v, %v", state, err)
			}
			log.WaitCrash("rich-app", 7, runLimit)
			run.waitShimLog("the command crashed", "service=rich-app", "code=7", "reason=exit")
			// The container sees the same.
			inside := run.Exec("cat", "/run/rich/app.json").Stdout
			if outside, err := os.ReadFile(filepath.Join(run.runDir(), "app.json")); err != nil || inside != string(outside) {
				t.Errorf("inside %q, outside %q, %v", inside, outside, err)
			}
			if got := run.Exec("sh", "-c", "id -u; id -g; id -G"); got.Stdout != "1234\n5678\n5678 4321\n" {
				t.Errorf("an exec is %+v", got)
			}
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(initLimit); code != 5 {
				run.fatal("exit status %d, want 5", code)
			}
			run.Delete()
			if got := run.Stdout.String(); got != "run 1\nrun 2\nrun 3\nready\n" {
				t.Errorf("stdout is %q", got)
			}
		})
	}
	// In the pause between two starts there is nobody to ask but the init.
	for name, c := range map[string]struct {
		end  func(r *task)
		want int
	}{
		"TERM":   {func(r *task) { r.Kill(syscall.SIGTERM) }, 7},
		"KILL":   {func(r *task) { r.Kill(syscall.SIGKILL) }, 137},
		"halt":   {func(r *task) { _, _ = r.TryExec(asRoot, "systemctl", "poweroff") }, 7},
		"reboot": {func(r *task) { _, _ = r.TryExec(asRoot, "systemctl", "reboot") }, 133},
	} {
		t.Run("paused "+name, func(t *testing.T) {
			t.Parallel()
			variants := []variant{systemdBookworm}
			if name == "TERM" || name == "KILL" {
				variants = append(variants, dumbInit)
			}
			forEach(t, variants, func(t *testing.T, v variant) {
				run, log := watch(t, v.image, v.with(withRich("on-exit", "restart"), withArgs("sh", "-c", "exit 7"))...)
				run.waitApp("a pause of seconds", func(s appState) bool { return s.Starts > 6 && !s.Running && s.RestartAt != nil })
				c.end(run)
				run.outcome(log, c.want)
			})
		})
	}
	t.Run("of the service", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withRich("on-exit", "restart"), withArgs("sh", "-c", "trap 'exit 5' TERM; echo ready; "+idle))
		run.booted()
		for n := 1; n <= 3; n++ {
			run.waitApp("the start", func(s appState) bool { return s.Starts == n && s.Running })
			if got := run.Exec("systemctl", "restart", "rich-app"); got.Code != 0 {
				t.Fatalf("restart: %+v", got)
			}
		}
		run.waitApp("the start", func(s appState) bool { return s.Starts == 4 && s.Running })
		run.WaitOutput(strings.Repeat("ready\n", 4), runLimit) // it has its trap
		if got := run.Exec("systemctl", "stop", "rich-app"); got.Code != 0 {
			t.Fatalf("stop: %+v", got)
		}
		if state, err := run.app(); err != nil || state.Running || state.RestartAt != nil {
			t.Errorf("the state is %+v, %v", state, err)
		}
		run.running()
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
	})
	// Without its launcher nothing can be started again.
	t.Run("launcher killed", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withRich("on-exit", "restart"), withArgs("sh", "-c", ready+idle))
		run.WaitOutput("ready", runLimit)
		run.booted()
		if got := run.Exec("systemctl", "kill", "--signal=KILL", "rich-app"); got.Code != 0 {
			t.Logf("kill: %+v", got)
		}
		run.outcome(log, 137)
	})
	// Each has a terminal of its own; nothing of the output or the input is lost on the way.
	t.Run("terminal", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(withRich("on-exit", "restart"), withTerminal(), withStdin(), withUser(1000, 1000),
				withArgs("sh", "-c", `stty -echo; echo "ready "; read line; head -c 30000 /dev/zero | tr '\0' x; echo; echo "got $line"; [ "$line" != end ]`))...)
			want := ""
			for n, word := range []string{"one", "two", "end"} {
				eventually(t, runLimit, "the prompt", func() error {
					if got := strings.Count(run.Stdout.String(), "ready "); got != n+1 {
						return fmt.Errorf("%d of them", got)
					}
					return nil
				})
				if _, err := fmt.Fprintln(run.Stdin, word); err != nil {
					t.Fatal(err)
				}
				want += "ready \r\n" + strings.Repeat("x", 30000) + "\r\ngot " + word + "\r\n"
			}
			run.waitApp("the last end", func(s appState) bool { return s.Status != nil && *s.Status == 1 })
			run.Kill(syscall.SIGTERM)
			run.Wait(runLimit)
			run.Delete()
			if got := run.Stdout.String(); !strings.HasPrefix(got, want) {
				t.Errorf("%d bytes of output, want at least %d: %q", len(got), len(want), tail(got))
			}
		})
	})
}

func TestOnExitKeep(t *testing.T) {
	t.Parallel()
	ended := func(status int) func(appState) bool {
		return func(s appState) bool {
			return !s.Running && s.Status != nil && *s.Status == status && s.RestartAt == nil
		}
	}
	for _, v := range matrixInits {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, v.image, withInit(v.init), withRich("on-exit", "keep"), withArgs("sh", "-c", "echo out; exit 42"))
			run.waitApp("the end", ended(42))
			run.running()
			if got := run.Exec("sh", "-c", "cat /run/rich/app.json"); !strings.Contains(got.Stdout, `"status":42`) {
				t.Errorf("inside it is %+v", got)
			}
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(initLimit); code != 42 {
				run.fatal("exit status %d, want 42", code)
			}
			run.Delete()
			if got := run.Stdout.String(); got != "out\n" {
				t.Errorf("stdout is %q", got)
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
			run, log := watch(t, v.image, v.with(withRich("on-exit", "keep"), withArgs("no-such-program"))...)
			run.waitApp("the end", ended(127))
			run.running()
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 127)
			if got := run.Stderr.String(); !strings.Contains(got, "no-such-program") || strings.Count(got, "\n") != 1 {
				t.Errorf("stderr is %q", got)
			}
		})
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
			run, log := watch(t, v.image, v.with(withRich("on-exit", "keep"), withArgs("true"))...)
			run.waitApp("the end", ended(0))
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
		})
	})
	t.Run("stopped while it runs", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
			run, log, signals := trapTask(t, v, withRich("on-exit", "keep"))
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 5)
			if got := signals(); len(got) != 1 || got[0] != "TERM" {
				t.Errorf("the command got %v", got)
			}
		})
	})
	// In a pod the engine sends the image's stop signal, whatever that is, without telling which it is.
	t.Run("stop signal of an image in a pod", func(t *testing.T) {
		t.Parallel()
		inPod := withAnnotation("io.kubernetes.cri.container-type", "container")
		forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
			const script = "trap 'echo quit; exit 5' QUIT; " + ready + idle
			run, log := watch(t, v.image, v.with(inPod, withRich("on-exit", "keep"), withArgs("sh", "-c", script))...)
			run.WaitOutput("ready", runLimit)
			run.Kill(syscall.SIGQUIT)
			run.outcome(log, 5)
			if got := run.Stdout.String(); got != "ready\nquit\n" {
				t.Errorf("stdout %q", got)
			}
			// After its end there is no command to get it.
			run, log = watch(t, v.image, v.with(inPod, withRich("on-exit", "keep"), withArgs("sh", "-c", "exit 6"))...)
			run.waitApp("the end", ended(6))
			run.Kill(syscall.SIGWINCH)
			run.outcome(log, 6)
		})
	})
	// An operator starts it again by the means of the init.
	t.Run("started again", func(t *testing.T) {
		t.Parallel()
		run, log := watch(t, imageBookworm, withInit("systemd"), withRich("on-exit", "keep"), withArgs("sh", "-c", "exit 3"))
		run.booted()
		for n := 1; n <= 2; n++ {
			run.waitApp("the end", func(s appState) bool { return s.Starts == n && ended(3)(s) })
			if got := run.Exec("systemctl", "restart", "rich-app"); got.Code != 0 {
				t.Fatalf("restart: %+v", got)
			}
		}
		run.waitApp("the end", func(s appState) bool { return s.Starts == 3 && ended(3)(s) })
		if got := run.Exec("systemctl", "kill", "--signal=KILL", "rich-app"); got.Code != 0 {
			t.Errorf("kill: %+v", got)
		}
		run.running()
		if got := run.Exec("systemctl", "poweroff"); got.Code != 0 && got.Code != 137 {
			t.Errorf("poweroff: %+v", got)
		}
		run.outcome(log, 3)
	})
}

// With a command that is pid 1 nobody would heed the option.
func TestOnExitRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts []taskOption
		want string
	}{
		"none": {[]taskOption{withInit("none")}, `annotation rich.containerd.io/on-exit: value "keep": with init "none"`},
		"init": {[]taskOption{withArgs("/sbin/init")}, `annotation rich.containerd.io/on-exit: value "keep": with init "systemd"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tryTask(t, imageBookworm, append(c.opts, withRich("on-exit", "keep"))...)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `on-exit to "stop"`) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

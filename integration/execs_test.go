package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Execs in ways and at times that are not the usual ones, and what ends them.

func shell(script string) *specs.Process {
	return execSpec("sh", "-c", script)
}

// said waits until the output of an exec has a text.
func said(t *testing.T, o *output, text string) {
	t.Helper()
	eventually(t, runLimit, fmt.Sprintf("%q", text), func() error {
		if got := o.String(); !strings.Contains(got, text) {
			return fmt.Errorf("the output is %q", got)
		}
		return nil
	})
}

// An exec has a terminal of its own, of the size that was set before its start or after.
func TestExecTerminal(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withArgs("sleep", "1000"))...)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		for name, before := range map[string]bool{"before": true, "after": false} {
			stdin, typed, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			defer typed.Close()
			stdout := &output{}
			process := shell("trap 'echo winch $(stty size)' WINCH; echo size $(stty size); tty; read -r line; echo line $line; while :; do sleep 0.1; done")
			process.Terminal = true
			exec, err := run.Task.Exec(ctx, name, process, cio.NewCreator(cio.WithStreams(stdin, stdout, nil), cio.WithTerminal, cio.WithFIFODir(private.Dir+"/fifo")))
			if err != nil {
				t.Fatal(err)
			}
			exit, err := exec.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			size := "0 0"
			if before {
				if err := exec.Resize(ctx, 81, 22); err != nil {
					t.Errorf("resize before the start: %v", err)
				}
				size = "22 81"
			}
			if err := exec.Start(ctx); err != nil {
				t.Fatal(err)
			}
			said(t, stdout, "/dev/pts/")
			if got := stdout.String(); !strings.HasPrefix(got, "size "+size+"\r\n") {
				t.Errorf("%s: the output is %q, want the size %s", name, got, size)
			}
			if _, err := fmt.Fprintln(typed, "hello"); err != nil {
				t.Fatal(err)
			}
			said(t, stdout, "line hello\r\n")
			if err := exec.Resize(ctx, 77, 33); err != nil {
				t.Errorf("resize: %v", err)
			}
			said(t, stdout, "winch 33 77\r\n")
			if err := exec.Kill(ctx, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			if status := <-exit; status.ExitCode() != 137 {
				t.Errorf("the exec ended with %d", status.ExitCode())
			}
			if _, err := exec.Delete(ctx); err != nil {
				t.Error(err)
			}
		}
		// Without a terminal there is nothing to set, which is no error.
		exec, err := run.Task.Exec(ctx, "none", shell("exit 3"), cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		if err := exec.Resize(ctx, 81, 22); err != nil {
			t.Errorf("resize without a terminal: %v", err)
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

// A container that is created has all that an exec needs; the command does not run yet.
func TestExecInCreated(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := newTask(t, v.image, v.with(withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
		if got := run.Exec("sh", "-c", "echo >/created; exit 4"); got.Code != 4 {
			t.Errorf("exec: %+v", got)
		}
		ctx, cancel := private.within(callLimit)
		defer cancel()
		_, exit, err := startExec(ctx, run.Task, "long", shell("trap 'exit 6' TERM; echo >/waits; while :; do sleep 0.1; done"), cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, runLimit, "the exec", func() error {
			if got := run.Exec("test", "-e", "/waits"); got.Code != 0 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		if status, err := run.Task.Status(ctx); err != nil || status.Status != containerd.Created || run.Stdout.String() != "" {
			t.Errorf("the task is %v, %v, its output %q", status, err, run.Stdout)
		}
		run.Start()
		run.WaitOutput("ready\n", runLimit)
		if got := run.Exec("test", "-e", "/created"); got.Code != 0 {
			t.Errorf("what the exec has written is not there: %+v", got)
		}
		select {
		case status := <-exit:
			t.Errorf("the exec has ended with %d", status.ExitCode())
		default:
		}
		run.Kill(syscall.SIGTERM)
		if code := run.Wait(runLimit); code != 5 {
			t.Errorf("exit status %d, want 5", code)
		}
		if status := <-exit; status.ExitCode() == 0 {
			t.Errorf("the exec ended with %d", status.ExitCode())
		}
		run.Delete()
	})
}

// killAll asks for a signal to all processes of a task, as a client does that does not look at the task's state.
func (r *task) killAll(signal syscall.Signal) error {
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	_, err := r.daemon.Client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: r.ID, Signal: uint32(signal), All: true})
	return errgrpc.ToNative(err)
}

// A signal to all reaches the command, whatever it is. After the task's end there is nobody left, which is what was wanted.
func TestKillAll(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run, signals := trapAll(t, v)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		_, exit, err := startExec(ctx, run.Task, "long", shell("exec sleep 1000"), cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.killAll(syscall.SIGUSR1); err != nil {
			t.Errorf("USR1 to all: %v", err)
		}
		eventually(t, runLimit, "the signal", func() error {
			if got := signals(); !slices.Contains(got, "USR1") {
				return fmt.Errorf("the signals are %q", got)
			}
			return nil
		})
		run.running()
		if err := run.killAll(syscall.SIGTERM); err != nil {
			t.Errorf("TERM to all: %v", err)
		}
		if code := run.Wait(runLimit); code != 5 {
			t.Errorf("exit status %d, want 5", code)
		}
		<-exit // with pid 1
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			if err := run.killAll(signal); err != nil {
				t.Errorf("signal %d to all after the end: %v", signal, err)
			}
		}
		if err := run.Task.Kill(ctx, syscall.SIGKILL); !errdefs.IsNotFound(err) {
			t.Errorf("kill after the end: %v", err)
		}
		run.Delete()
	})
}

// trapAll runs the probe, which notes its signals.
func trapAll(t *testing.T, v variant) (run *task, signals func() []string) {
	t.Helper()
	dir := t.TempDir()
	run = startTask(t, v.image, v.with(withProbe("trap", "/out/signals", "0", "5"), withBind(dir, "/out", "rbind", "rw"))...)
	run.WaitOutput("ready", runLimit)
	return run, func() []string {
		content, _ := os.ReadFile(filepath.Join(dir, "signals")) // it comes with the first
		return strings.Fields(string(content))
	}
}

// In the host's pid namespace the end of pid 1 is nobody else's: a kill has to find all of them.
func TestKillAllHostPIDs(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withSpec(oci.WithHostNamespace(specs.PIDNamespace)),
			withArgs("sh", "-c", "sleep 1000 & "+ready+idle))...)
		run.WaitOutput("ready\n", runLimit)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		exec, exit, err := startExec(ctx, run.Task, "long", shell("sleep 1000 & exec sleep 1000"), cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		var before []containerd.ProcessInfo
		eventually(t, runLimit, "the processes", func() (err error) {
			if before, err = run.Task.Pids(ctx); err == nil && len(before) < 4 {
				err = fmt.Errorf("only %d", len(before))
			}
			return err
		})
		run.Kill(syscall.SIGKILL, containerd.WithKillAll)
		if status := <-exit; status.ExitCode() != 137 {
			t.Errorf("the exec ended with %d", status.ExitCode())
		}
		if code := run.Wait(runLimit); code != 137 {
			t.Errorf("exit status %d, want 137", code)
		}
		for _, p := range before {
			eventually(t, runLimit, "the end of all", func() error {
				// It may be another's by now. A dead one waits for the host's init.
				cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
				if strings.Contains(string(cgroups), run.ID) && !strings.Contains(string(status), "State:\tZ") {
					return fmt.Errorf("process %d is left:\n%s", p.Pid, status)
				}
				return nil
			})
		}
		if _, err := exec.Delete(ctx); err != nil {
			t.Error(err)
		}
		run.Delete()
	})
}

// Both kinds of options reach libcontainer.
func TestNoNewKeyring(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/keys"); err != nil {
		t.Skipf("this kernel has no keyrings: %v", err)
	}
	for name, c := range map[string]struct {
		opts any
		own  bool
	}{
		"none": {nil, true},
		"runc": {&options.Options{NoNewKeyring: true}, false},
		"TOML": {&runtimeoptions.Options{ConfigBody: []byte("NoNewKeyring = true\n")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// It is hidden by default.
			visible := withSpec(oci.WithMaskedPaths(nil))
			run := startTask(t, imageBookworm, withInit("none"), visible, withRuntimeOptions(c.opts), withArgs("sh", "-c", "cat /proc/keys; "+ready+idle))
			run.WaitOutput("ready\n", runLimit)
			for what, keys := range map[string]string{"the command": run.Stdout.String(), "an exec": run.Exec("cat", "/proc/keys").Stdout} {
				if own := strings.Contains(keys, "_ses."+run.ID); own != c.own {
					t.Errorf("%s has a keyring of the container: %v, want %v\n%s", what, own, c.own, keys)
				}
			}
			run.Kill(syscall.SIGKILL)
			run.Wait(runLimit)
			run.Delete()
		})
	}
}

// Without pivot_root the mounts of the host stay in the container's mount namespace, out of its reach. That shows when
// one of them is unmounted on the host, and still is in use. Not parallel: containers that are being made use it as well.
func TestNoPivotRoot(t *testing.T) {
	for name, c := range map[string]struct {
		opts any
		kept bool
	}{
		"none": {nil, false},
		"runc": {&options.Options{NoPivotRoot: true}, true},
		"TOML": {&runtimeoptions.Options{ConfigBody: []byte("NoPivotRoot = true\n")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			// The outer mount keeps from other namespaces that the inner one goes.
			outer := t.TempDir()
			mount := func(dir string) {
				t.Helper()
				if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // it may be unmounted already
				if err := unix.Mount("none", dir, "", unix.MS_PRIVATE, ""); err != nil {
					t.Fatal(err)
				}
			}
			mount(outer)
			inner := filepath.Join(outer, "inner")
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			mount(inner)
			run := startTask(t, imageBookworm, withInit("none"), withRuntimeOptions(c.opts), withArgs("sh", "-c", ready+idle))
			run.WaitOutput("ready\n", runLimit)
			unused := unmounted(t, inner)
			if err := unix.Unmount(inner, 0); err != nil {
				t.Fatal(err)
			}
			if got := run.Exec("sh", "-c", "ls /; exit 4"); got.Code != 4 || !strings.Contains(got.Stdout, "usr\n") {
				t.Errorf("exec: %+v", got)
			}
			if c.kept {
				time.Sleep(500 * time.Millisecond)
				if unused() {
					t.Error("the container has not kept the host's mount")
				}
			} else {
				eventually(t, runLimit, "the end of the mount", func() error {
					if !unused() {
						return fmt.Errorf("the container has kept it")
					}
					return nil
				})
			}
			run.Kill(syscall.SIGKILL)
			run.Wait(runLimit)
			run.Delete()
			eventually(t, runLimit, "the end of the mount", func() error {
				if !unused() {
					return fmt.Errorf("it is in use")
				}
				return nil
			})
		})
	}
}

// unmounted tells whether a file system that is mounted now is no longer, in any mount namespace (inotify(7), IN_UNMOUNT).
func unmounted(t *testing.T, dir string) func() bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE_SELF); err != nil {
		t.Fatal(err)
	}
	gone := false
	return func() bool {
		n, err := unix.Read(fd, make([]byte, 4096))
		gone = gone || err == nil && n > 0
		return gone
	}
}

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// What a client of containerd can ask of a task, beyond starting and ending it.

// fixedIO names a task's streams and does nothing about them.
type fixedIO cio.Config

func (f fixedIO) create(string) (cio.IO, error) { return f, nil }

// Config is for cio.IO, as are the three below.
func (f fixedIO) Config() cio.Config { return cio.Config(f) }
func (fixedIO) Cancel()              {}
func (fixedIO) Wait()                {}
func (fixedIO) Close() error         { return nil }

// TestHostileLogFile: the file that takes the output is the host's. A command may write to it, and do nothing else.
func TestHostileLogFile(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		for name, user := range map[string]uint32{"root": 0, "user": 1234} {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte("before\n"), 0o640); err != nil {
				t.Fatal(err)
			}
			const script = "chmod 4755 /proc/self/fd/1; chown 7:7 /proc/self/fd/1; : > /proc/self/fd/1; echo out; exit 3"
			r := newTask(t, v.image, v.with(withProcess(func(p *specs.Process) { p.User.UID = user }), withArgs("sh", "-c", script))...)
			r.replace(fixedIO{Stdout: "file://" + path}.create)
			r.Start()
			if code := r.Wait(runLimit); code != 3 {
				t.Errorf("%s: exit status %d, want 3", name, code)
			}
			r.Delete()
			if got := readLines(t, path); !slices.Equal(got, []string{"before", "out"}) {
				t.Errorf("%s: got %q", name, got)
			}
			var stat syscall.Stat_t
			if err := syscall.Stat(path, &stat); err != nil || stat.Uid != 0 || stat.Gid != 0 || stat.Mode&0o7777 != 0o640 {
				t.Errorf("%s: %v, now of %d:%d with mode %o", name, err, stat.Uid, stat.Gid, stat.Mode)
			}
		}
	})
}

func TestStreamURIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := func(name, ready string) string {
		path := filepath.Join(dir, name)
		script := "#!/bin/sh\n" + ready + "\nexec 5>&-\nout=$(cat <&3); err=$(cat <&4)\necho \"$CONTAINER_NAMESPACE/$CONTAINER_ID $1=$2: $out, $err\" > \"$2.part\"\nmv \"$2.part\" \"$2\"\n"
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	v1, v2, silent := program("v1", ""), program("v2", "printf x >&5"), program("silent", "")
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := func(streams fixedIO) *task {
			r := newTask(t, v.image, v.with(withArgs("sh", "-c", "echo out; echo err >&2; exit 3"))...)
			r.replace(streams.create)
			r.Start()
			if code := r.Wait(runLimit); code != 3 {
				t.Errorf("exit status %d, want 3", code)
			}
			r.Delete()
			return r
		}
		file := func(name string) string { return filepath.Join(dir, v.name+"-"+name) }
		t.Run("none", func(*testing.T) { run(fixedIO{}) })
		t.Run("file", func(t *testing.T) {
			if err := os.WriteFile(file("both"), []byte("before\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			run(fixedIO{Stdout: "file://" + file("both"), Stderr: "file://" + file("both")})
			if got := readLines(t, file("both")); !slices.Equal(got, []string{"before", "out", "err"}) {
				t.Errorf("got %q", got)
			}
			out, err := file("new/folder/out"), file("new/folder/err")
			run(fixedIO{Stdout: "file://" + out, Stderr: "file://" + err})
			if out, err := readLines(t, out), readLines(t, err); !slices.Equal(out, []string{"out"}) || !slices.Equal(err, []string{"err"}) {
				t.Errorf("got %q and %q", out, err)
			}
		})
		t.Run("fifo", func(t *testing.T) {
			read := map[string]<-chan string{}
			streams := map[string]string{}
			for _, name := range []string{"out", "err"} {
				path := file("fifo-" + name)
				if err := unix.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
				text := make(chan string, 1)
				go func() {
					content, err := os.ReadFile(path)
					text <- fmt.Sprint(string(content), err)
				}()
				read[name], streams[name] = text, "fifo://"+path
			}
			run(fixedIO{Stdout: streams["out"], Stderr: streams["err"]})
			for name, text := range read {
				if got, want := <-text, name+"\n<nil>"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
		for scheme, path := range map[string]string{"binary": v1, "binary-v2": v2} {
			t.Run(scheme, func(t *testing.T) {
				to := file(scheme)
				uri := scheme + "://" + path + "?to=" + to
				r := run(fixedIO{Stdout: uri, Stderr: uri})
				// The program ends after the task.
				eventually(t, runLimit, to, func() error {
					_, err := os.Stat(to)
					return err
				})
				if got, want := readLines(t, to)[0], testNamespace+"/"+r.ID+" to="+to+": out, err"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	})
	for name, c := range map[string]struct {
		uri  string
		word string
	}{
		"no program":        {"binary:///no/such/program", "/no/such/program"},
		"never ready":       {"binary-v2://" + silent, "ready"},
		"no such scheme":    {"http://host/path", "http"},
		"no folder":         {"file:///dev/null/folder/file", "/dev/null"},
		"no fifo":           {"fifo:///no/such/fifo", "/no/such/fifo"},
		"no name":           {"binary://", "program"},
		"a path that is no": {"no/such/fifo", "no/such/fifo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := newTask(t, imageScratch, withInit("none"), withArgs("/hello"))
			ctx, cancel := private.within(callLimit)
			defer cancel()
			if _, err := run.Task.Delete(ctx, containerd.WithProcessKill); err != nil {
				t.Fatal(err)
			}
			run.Task = nil
			_, err := run.Container.NewTask(ctx, fixedIO{Stdout: c.uri, Stderr: c.uri}.create)
			if err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("got %v, want an error that says %q", err, c.word)
			}
		})
	}
}

func TestRuntimeOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, []byte("[rich]\ninit = \"dumb-init\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string]any{
		"ConfigPath": &runtimeoptions.Options{ConfigPath: file},
		"ConfigBody": &runtimeoptions.Options{ConfigBody: []byte("[rich]\ninit = \"dumb-init\"\n")},
	} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			run := startTask(t, imageBookworm, withRuntimeOptions(opts), withArgs("sleep", "1000"))
			run.waitCommandLine("sleep", "1000")
			if lines := run.commandLines(); !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "dumb-init") }) {
				t.Errorf("the processes are %q", lines)
			}
			run.Kill(syscall.SIGKILL)
			run.Wait(runLimit)
			run.Delete()
			compare()
		})
	}
	for name, c := range map[string]struct {
		opts  any
		words []string
	}{
		"SystemdCgroup":         {&options.Options{SystemdCgroup: true}, []string{"SystemdCgroup", "systemd"}},
		"SystemdCgroup in TOML": {&runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = true\n")}, []string{"SystemdCgroup", "systemd"}},
		"BinaryName in TOML":    {&runtimeoptions.Options{ConfigBody: []byte("BinaryName = \"crun\"\n")}, []string{"BinaryName", `"crun"`, "remove"}},
		"checkpoints":           {&options.Options{CriuWorkPath: "/work"}, []string{"CriuWorkPath", `"/work"`, "remove"}},
		"unknown key in TOML":   {&runtimeoptions.Options{ConfigBody: []byte("ShimCgroups = \"/shims\"\n")}, []string{`"ShimCgroups"`, `"ShimCgroup"`}},
		"no TOML":               {&runtimeoptions.Options{ConfigBody: []byte("{")}, []string{"ConfigBody"}},
		"no file":               {&runtimeoptions.Options{ConfigPath: "/no/such/file"}, []string{"ConfigPath", "/no/such/file"}},
		"no such option":        {&runtimeoptions.Options{ConfigBody: []byte("[rich]\ninti = \"systemd\"\n")}, []string{"inti", `"init"`}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat("/run/systemd/system"); err == nil && strings.HasPrefix(name, "SystemdCgroup") {
				t.Skip("this host has systemd, where the option works")
			}
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBusybox, withRuntimeOptions(c.opts), withInit("none"))
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			compare()
		})
	}
	// The state of the container lies elsewhere then, and is found also when the shim's own note is lost.
	t.Run("Root", func(t *testing.T) {
		compare := snapshotHost(t)
		root := t.TempDir()
		run, log := watch(t, imageBusybox, withInit("dumb-init"), withRuntimeOptions(&options.Options{Root: root}), withArgs("sleep", "1000"))
		state := filepath.Join(root, testNamespace, run.ID)
		if _, err := os.Stat(filepath.Join(state, "state.json")); err != nil {
			t.Error(err)
		}
		if err := os.Truncate(run.bundle("rich", "made.json"), 1); err != nil {
			t.Fatal(err)
		}
		run.killed(log, 137)
		log.Wait(runtime.TaskDeleteEventTopic, runLimit)
		if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", state, err)
		}
		compare()
	})
}

// containerd can ask for shims whose processes share no core with those of others.
func TestSchedCore(t *testing.T) {
	t.Parallel()
	d := newest.start(t, func(d *daemon) { d.ShimEnv = []string{"SCHED_CORE=1"} })
	run, err := tryTask(t, imageScratch, withDaemon(d), withInit("none"), withArgs("/hello", "sleep"))
	if _, own := schedCore(os.Getpid()); own != nil {
		t.Logf("this host cannot: %v", own)
		expectError(t, err, []string{"SCHED_CORE", "CONFIG_SCHED_CORE", own.Error()})
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	cookie, err := schedCore(int(run.Task.Pid()))
	if err != nil || cookie == 0 {
		t.Errorf("the container's group is %d, %v", cookie, err)
	}
	other := newTask(t, imageScratch, withDaemon(d), withInit("none"), withArgs("/hello", "sleep"))
	if got, err := schedCore(int(other.Task.Pid())); err != nil || got == cookie {
		t.Errorf("another container's group is %d, %v, as the first one's", got, err)
	}
}

// schedCore tells the group of a process for core scheduling, 0 if it has none.
func schedCore(pid int) (cookie uint64, err error) {
	err = unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(pid), unix.PR_SCHED_CORE_SCOPE_THREAD, uintptr(unsafe.Pointer(&cookie)))
	return cookie, err
}

func TestRuntimeInfo(t *testing.T) {
	t.Parallel()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	info, err := private.Client.RuntimeInfo(ctx, testRuntime, &options.Options{NoPivotRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != testRuntime || info.Version.Version == "" {
		t.Errorf("got %+v", info)
	}
	if given, ok := info.Options.(*options.Options); !ok || !given.NoPivotRoot {
		t.Errorf("the options are %+v", info.Options)
	}
	f, ok := info.Features.(*features.Features)
	if !ok {
		t.Fatalf("the features are a %T", info.Features)
	}
	if f.OCIVersionMax == "" || f.Linux == nil || f.Linux.Seccomp == nil || !*f.Linux.Seccomp.Enabled {
		t.Fatalf("got %+v", f)
	}
	for what, list := range map[string]struct {
		have []string
		want []string
	}{
		"hooks":         {f.Hooks, []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}},
		"mount options": {f.MountOptions, []string{"ro", "rbind", "rro"}},
		"namespaces":    {f.Linux.Namespaces, []string{"pid", "cgroup", "user", "time"}},
		"capabilities":  {f.Linux.Capabilities, []string{"CAP_SYS_BOOT", "CAP_SYS_ADMIN"}},
	} {
		for _, want := range list.want {
			if !slices.Contains(list.have, want) {
				t.Errorf("%s: no %s in %q", what, want, list.have)
			}
		}
	}
	if _, err := private.Client.RuntimeInfo(ctx, testRuntime, &options.Options{BinaryName: "crun"}); err == nil || !strings.Contains(err.Error(), "BinaryName") {
		t.Errorf("got %v, want an error about BinaryName", err)
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := startIdle(t, v)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		limit, quota, period := int64(300<<20), int64(50000), uint64(100000)
		update := func(r *specs.LinuxResources) error { return run.Task.Update(ctx, containerd.WithResources(r)) }
		if err := errors.Join(
			update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}),
			update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}),
		); err != nil {
			t.Fatal(err)
		}
		metric, err := run.Task.Metrics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := typeurl.UnmarshalAny(metric.Data)
		if err != nil {
			t.Fatal(err)
		}
		var memory, pids, cpu uint64
		switch stats := stats.(type) {
		case *cgroup1.Metrics:
			memory, pids, cpu = stats.Memory.Usage.Limit, stats.Pids.Current, stats.CPU.Usage.Total
		case *cgroup2.Metrics:
			memory, pids, cpu = stats.Memory.UsageLimit, stats.Pids.Current, stats.CPU.UsageUsec
		default:
			t.Fatalf("the metrics are a %T", stats)
		}
		if memory != uint64(limit) || pids == 0 || cpu == 0 {
			t.Errorf("memory limit %d, %d processes, %d of CPU time", memory, pids, cpu)
		}
		// What cannot be is refused, and changes nothing.
		if err := update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}); err == nil {
			t.Error("there are no 4000 CPUs, but the update was accepted")
		}
		run.running()
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		if err := update(&specs.LinuxResources{}); !errdefs.IsNotFound(err) {
			t.Errorf("update after the end: %v", err)
		}
		run.Delete()
	})
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
		run.WaitOutput("ready\n", runLimit)
		if v == systemdBookworm {
			run.booted()
		}
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := run.Task.Resume(ctx); err == nil {
			t.Error("a running task was resumed")
		}
		eventually(t, callLimit, "pause", func() error { return run.Task.Pause(ctx) })
		status, err := run.Task.Status(ctx)
		if err != nil || status.Status != containerd.Paused {
			t.Errorf("the status is %v, %v", status, err)
		}
		if _, err := run.TryExec(byOperator, "true"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("exec in a paused container: %v", err)
		}
		if err := run.Task.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		if got := run.Exec("sh", "-c", "exit 4"); got.Code != 4 {
			t.Errorf("exec: %+v", got)
		}
		topics := log.Topics()
		for _, topic := range []string{runtime.TaskPausedEventTopic, runtime.TaskResumedEventTopic} {
			if !slices.Contains(topics, topic) {
				log.Wait(topic, runLimit)
			}
		}
		// A paused one can be killed.
		eventually(t, callLimit, "pause", func() error { return run.Task.Pause(ctx) })
		run.Kill(syscall.SIGKILL)
		run.outcome(log, 137)
	})
}

func TestPidsAndKillAll(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withArgs("sh", "-c", ready+idle))...)
		run.WaitOutput("ready\n", runLimit)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		exec, exit, err := startExec(ctx, run.Task, "long", execSpec("sleep", "1000"), cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		processes, err := run.Task.Pids(ctx)
		if err != nil {
			t.Fatal(err)
		}
		execs := map[string]uint32{}
		var pids []uint32
		for _, p := range processes {
			pids = append(pids, p.Pid)
			if p.Info != nil {
				details := &options.ProcessDetails{}
				if err := typeurl.UnmarshalTo(p.Info, details); err != nil {
					t.Fatal(err)
				}
				execs[details.ExecID] = p.Pid
			}
		}
		if !slices.Contains(pids, run.Task.Pid()) || len(execs) != 1 || execs["long"] != exec.Pid() {
			t.Errorf("the processes are %d with the execs %v, want %d and exec %d", pids, execs, run.Task.Pid(), exec.Pid())
		}
		run.Kill(syscall.SIGKILL, containerd.WithKillAll)
		if status := <-exit; status.ExitCode() != 137 {
			t.Errorf("the exec ended with %d", status.ExitCode())
		}
		run.outcome(log, 137)
	})
}

func TestResize(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := newTask(t, v.image, v.with(withTerminal(), withArgs("sh", "-c", "trap 'stty size' WINCH; stty size; "+idle))...)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		// Before the start it is kept.
		if err := run.Task.Resize(ctx, 81, 22); err != nil {
			t.Fatal(err)
		}
		run.Start()
		run.WaitOutput("22 81\r\n", runLimit)
		if err := run.Task.Resize(ctx, 77, 33); err != nil {
			t.Fatal(err)
		}
		run.WaitOutput("33 77\r\n", runLimit)
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	run := startTask(t, imageScratch, withInit("none"), withArgs("/hello", "sleep"))
	ctx, cancel := private.within(callLimit)
	defer cancel()
	_, err := private.Client.TaskService().Checkpoint(ctx, &tasks.CheckpointTaskRequest{ContainerID: run.ID})
	if err := errgrpc.ToNative(err); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v, want it not to be implemented", err)
	}
	run.running()
}

// A command reads what was written before CloseIO, and then the end; an exec does as well.
func TestExecStdin(t *testing.T) {
	t.Parallel()
	forEach(t, lifeVariants, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withArgs("sleep", "1000"))...)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		input := strings.Repeat("0123456789\n", 20000)
		stdout := &output{}
		exec, exit, err := startExec(ctx, run.Task, "cat", execSpec("cat"),
			cio.NewCreator(cio.WithStreams(strings.NewReader(input), stdout, &output{}), cio.WithFIFODir(private.Dir+"/fifo")))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, runLimit, "the output", func() error {
			if got := len(stdout.Bytes()); got != len(input) {
				return fmt.Errorf("%d bytes", got)
			}
			return nil
		})
		if err := exec.CloseIO(ctx, containerd.WithStdinCloser); err != nil {
			t.Fatal(err)
		}
		if status := <-exit; status.ExitCode() != 0 || stdout.String() != input {
			t.Errorf("exit status %d, %d bytes", status.ExitCode(), len(stdout.String()))
		}
		if _, err := exec.Delete(ctx); err != nil {
			t.Error(err)
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

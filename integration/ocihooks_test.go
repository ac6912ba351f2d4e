package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The field cases about the hooks of a bundle's config.json. Not parallel: the host is compared.

// hookSetters set the hooks of a phase.
var hookSetters = map[string]func(*specs.Hooks, []specs.Hook){
	"prestart":        func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l }, //nolint:staticcheck // deprecated, and still what many use
	"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
	"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
	"startContainer":  func(h *specs.Hooks, l []specs.Hook) { h.StartContainer = l },
	"poststart":       func(h *specs.Hooks, l []specs.Hook) { h.Poststart = l },
	"poststop":        func(h *specs.Hooks, l []specs.Hook) { h.Poststop = l },
}

// withHook sets the hooks of a phase.
func withHook(phase string, hooks ...specs.Hook) taskOption {
	return withHooks(func(h *specs.Hooks) { hookSetters[phase](h, hooks) })
}

// shellHook is a hook that is a line of shell. Its arguments end as the command line does by which containerd cleans up
// after a shim: the shim starts itself to run it, and must not take them for its own.
func shellHook(line string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", line, "-id", "nobody", "delete"}}
}

// lineCount counts the lines of a file that need not be there.
func lineCount(path string) int {
	content, _ := os.ReadFile(path)
	return strings.Count(string(content), "\n")
}

func TestOCIHooks(t *testing.T) {
	for _, v := range lifeVariants {
		t.Run(v.name, func(t *testing.T) {
			compare := snapshotHost(t)
			dir := t.TempDir()
			// A program of the host must not get the container's environment, one in the container does.
			line := func(phase string) specs.Hook {
				hook := shellHook(fmt.Sprintf(`cat > %[1]s/%[2]s.json; echo "%[2]s $SECRET" >> %[1]s/order`, dir, phase))
				if phase == "createRuntime" {
					hook.Args[len(hook.Args)-1] = "start"
				}
				return hook
			}
			opts := v.with(withBind(dir, dir, "rbind", "rw"), withEnv("SECRET=of the container"),
				withArgs("sh", "-c", "trap 'exit 5' TERM; echo command >> "+dir+"/order; "+ready+idle))
			for phase := range hookSetters {
				opts = append(opts, withHook(phase, line(phase)))
			}
			run := newTask(t, v.image, opts...)
			if got := readLines(t, dir+"/order"); !slices.Equal(got, []string{"prestart ", "createRuntime ", "createContainer "}) {
				t.Errorf("before the start there were %q", got)
			}
			run.Start()
			if !slices.Contains(readLines(t, dir+"/order"), "poststart ") {
				t.Error("the poststart hook did not run before the start was over")
			}
			run.WaitOutput("ready\n", runLimit)
			pid := int(run.Task.Pid())
			run.stop()
			compare()

			got := readLines(t, dir+"/order")
			// poststart runs beside pid 1.
			begin, end := []string{"prestart ", "createRuntime ", "createContainer "}, "poststop "
			inside := "startContainer of the container"
			if len(got) != 7 || !slices.Equal(got[:3], begin) || got[6] != end ||
				slices.Index(got, inside) < 0 || slices.Index(got, inside) > slices.Index(got, "command") {
				t.Errorf("the order is %q", got)
			}
			for phase, want := range map[string]struct {
				status specs.ContainerState
				pid    int
			}{
				"prestart": {specs.StateCreating, pid}, "createRuntime": {specs.StateCreating, pid},
				"poststart": {specs.StateRunning, pid}, "poststop": {specs.StateStopped, 0},
			} {
				var state specs.State
				content, err := os.ReadFile(filepath.Join(dir, phase+".json"))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(content, &state); err != nil {
					t.Fatalf("%s: %v", content, err)
				}
				if state.ID != run.ID || state.Bundle != run.bundle() || state.Status != want.status || state.Pid != want.pid ||
					state.Annotations["rich.containerd.io/init"] != v.init {
					t.Errorf("%s: the state is %+v", phase, state)
				}
			}
		})
	}
}

// A hook that fails says so, with everything that helps, and nothing stays of the container.
func TestB26Hooks(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) specs.Hook {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return specs.Hook{Path: path}
	}
	second := 1
	hang := file("hangs", "#!/bin/sh\necho waiting >&2\nsleep 1000 &\nsleep 1000\n", 0o755)
	hang.Timeout = &second
	fails := file("fails", "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x >&2\necho 'no such luck' >&2\nexit 7\n", 0o755)
	type failure struct {
		phase string
		hook  specs.Hook
		words []string
	}
	var cases []failure
	for _, phase := range []string{"prestart", "createRuntime", "createContainer"} {
		cases = append(cases,
			failure{phase, fails, []string{"exit status 7", "no such luck"}},
			failure{phase, hang, []string{"1s", "waiting"}})
	}
	cases = append(cases,
		failure{"createRuntime", file("no-interpreter-line", "exit 0\n", 0o755), []string{"exec format error", "#!"}},
		failure{"createRuntime", file("bad-interpreter", "#! /no/bin/sh\n", 0o755), []string{"no such file", "interpreter"}},
		failure{"createContainer", file("carriage-return", "#!/bin/sh\r\nexit 0\r\n", 0o755), []string{"no such file", "carriage return"}},
		failure{"createRuntime", file("not-executable", "#!/bin/sh\n", 0o644), []string{"permission denied"}},
		failure{"createRuntime", specs.Hook{Path: dir + "/missing"}, []string{"no such file"}},
	)
	for _, c := range cases {
		t.Run(c.phase+" "+filepath.Base(c.hook.Path), func(t *testing.T) {
			var before []string
			compare := snapshotHost(t)
			after := filepath.Join(t.TempDir(), "after")
			v := systemdBookworm
			run, err := tryTask(t, v.image, v.with(withHook(c.phase, c.hook), withHook("poststop", shellHook("echo x >> "+after)), withWritten(&before))...)
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range append(c.words, c.phase, c.hook.Path) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %.1000s", word, err)
				}
			}
			if len(err.Error()) > 4000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			compare()
			sameLines(t, "the root file system", run.written(), before)
			if n := lineCount(after); n != 1 {
				t.Errorf("the poststop hook ran %d times", n)
			}
		})
	}
	for _, c := range []struct {
		name  string
		hook  specs.Hook
		words []string
	}{
		{"relative path", specs.Hook{Path: "hook"}, []string{"hooks.createRuntime[0].path", `"hook"`, "absolute"}},
		{"timeout", specs.Hook{Path: "/bin/true", Timeout: new(int)}, []string{"hooks.createRuntime[0].timeout", "0", "1 second"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBusybox, withInit("none"), withHook("createRuntime", c.hook))
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("got %v", err)
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			compare()
		})
	}
}

// What a hook leaves may hold its output open as long as it wants.
func TestB26HookLeavesProcess(t *testing.T) {
	for phase := range hookSetters {
		if phase == "startContainer" {
			continue // what that leaves belongs to the container
		}
		t.Run(phase, func(t *testing.T) {
			compare := snapshotHost(t)
			left := filepath.Join(t.TempDir(), "pid")
			got := runTask(t, imageBusybox, runLimit, withInit("none"), withArgs("sh", "-c", "exit 3"),
				withHook(phase, shellHook("sleep 1000 & echo $! > "+left)))
			if got.Code != 3 {
				t.Errorf("got %+v", got)
			}
			pid, err := strconv.Atoi(readLines(t, left)[0])
			if err != nil {
				t.Fatal(err)
			}
			if phase != "createContainer" { // there it is a process of the container's
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Errorf("it did not stay: %v", err)
				}
			}
			compare()
		})
	}
}

// Hooks that come when the container is there already end it when they fail.
func TestB26LateHooks(t *testing.T) {
	second := 1
	for name, line := range map[string]string{"fails": "echo 'no such luck' >&2; exit 7", "hangs": "sleep 1000"} {
		for _, v := range lifeVariants {
			t.Run(name+" "+v.name, func(t *testing.T) {
				compare := snapshotHost(t)
				hook := shellHook(line)
				hook.Timeout = &second
				after := filepath.Join(t.TempDir(), "after")
				run, log := watchCreated(t, v.image, v.with(withHook("poststart", hook), withHook("poststop", shellHook("echo x >> "+after)), withArgs("sleep", "1000"))...)
				ctx, cancel := private.within(callLimit)
				defer cancel()
				err := run.Task.Start(ctx)
				if err == nil {
					t.Fatal("it was started")
				}
				words := []string{"poststart", "/bin/sh", "1s"}
				if name == "fails" {
					words = []string{"poststart", "/bin/sh", "exit status 7", "no such luck"}
				}
				for _, word := range words {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("the error does not say %q: %v", word, err)
					}
				}
				run.outcome(log, 137)
				compare()
				if n := lineCount(after); n != 1 {
					t.Errorf("the poststop hook ran %d times", n)
				}
			})
		}
	}
	t.Run("startContainer", func(t *testing.T) {
		compare := snapshotHost(t)
		run, log := watch(t, imageBusybox, withInit("none"), withHook("startContainer", shellHook("exit 7")), withArgs("sh", "-c", "exit 0"))
		run.outcome(log, 255)
		compare()
	})
}

func TestB28Poststop(t *testing.T) {
	second := 1
	ends := map[string]func(t *testing.T, r *task, log *eventLog){
		"by itself": func(_ *testing.T, r *task, log *eventLog) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			r.Kill(syscall.SIGTERM)
			r.outcome(log, 5)
		},
		"crash": func(t *testing.T, r *task, log *eventLog) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			if err := syscall.Kill(int(r.Task.Pid()), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.outcome(log, 137)
		},
		"never started": func(_ *testing.T, r *task, log *eventLog) {
			r.Kill(syscall.SIGKILL)
			r.outcome(log, 137)
		},
		"containerd restarted": func(t *testing.T, r *task, _ *eventLog) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			private.crash(t)
			private.resume(t)
			r.reattach()
			log := subscribe(t, r.ID)
			r.Kill(syscall.SIGTERM)
			r.outcome(log, 5)
		},
		"shim killed": func(_ *testing.T, r *task, log *eventLog) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			r.killed(log, 137)
		},
		"shim killed after the end": func(_ *testing.T, r *task, log *eventLog) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			r.Kill(syscall.SIGTERM)
			r.Wait(runLimit)
			r.killed(log, 5)
		},
	}
	for _, name := range slices.Sorted(maps.Keys(ends)) {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			dir := t.TempDir()
			note := func(name, rest string) specs.Hook {
				hook := shellHook(fmt.Sprintf("cat >> %[1]s/states; echo >> %[1]s/states; echo %s >> %[1]s/order; %s", dir, name, rest))
				hook.Timeout = &second
				return hook
			}
			v := dumbInit
			run, log := watchCreated(t, v.image, v.with(withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle),
				withHook("poststop", note("A", "exit 1"), note("B", "sleep 1000"), note("C", "true")))...)
			ends[name](t, run, log)
			compare()
			if got := readLines(t, dir+"/order"); !slices.Equal(got, []string{"A", "B", "C"}) {
				t.Errorf("the hooks that ran are %q", got)
			}
			for _, line := range readLines(t, dir+"/states") {
				var state specs.State
				if err := json.Unmarshal([]byte(line), &state); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if state.ID != run.ID || state.Status != specs.StateStopped || state.Bundle != run.bundle() {
					t.Errorf("the state is %+v", state)
				}
			}
		})
	}
	// Those behind a hook that takes all the time which containerd gives the call have theirs.
	t.Run("shim killed and hooks hang", func(t *testing.T) {
		compare := snapshotHost(t)
		order := filepath.Join(t.TempDir(), "order")
		run, log := watchCreated(t, imageBusybox, withInit("none"), withArgs("sleep", "1000"),
			withHook("poststop", shellHook("echo A >> "+order+"; sleep 1000"), shellHook("echo B >> "+order+"; sleep 1000")))
		run.Start()
		run.killed(log, 137)
		log.Wait(runtime.TaskDeleteEventTopic, runLimit)
		compare()
		if got := readLines(t, order); !slices.Equal(got, []string{"A", "B"}) {
			t.Errorf("the hooks that ran are %q", got)
		}
	})
}

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

	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	hostHookFile = "/etc/containers/oci/hooks.d/"
	vendorHook   = "/usr/share/containers/oci/hooks.d/"
	hostOptions  = "/etc/containerd/rich.toml"
)

// hostHook is a file of hooks.d for all containers.
func hostHook(path string, args []string, timeout int, stages ...string) string {
	h := map[string]any{"path": path, "args": args}
	if timeout != 0 {
		h["timeout"] = timeout
	}
	text, err := json.Marshal(map[string]any{
		"version": "1.0.0", "hook": h, "when": map[string]any{"always": true}, "stages": stages,
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// hostScript is such a file for a shell script, whose state is on its stdin.
func hostScript(stage, script string) string {
	return hostHook("/bin/sh", []string{"sh", "-c", script}, 0, stage)
}

// withHostHooks runs the container by a shim whose host has these files of hooks.d, and wants them.
func withHostHooks(t testing.TB, files map[string]string) taskOption {
	t.Helper()
	all := map[string]string{hostOptions: "host-hooks = \"yes\"\nhook-timeout = \"5s\"\n"}
	for name, content := range files {
		if !filepath.IsAbs(name) {
			name = hostHookFile + name
		}
		all[name] = content
	}
	return withHost(newHostFiles(t, all))
}

// note is a script that notes a word and the state.
func (n notes) note(word string) string {
	return fmt.Sprintf("cat >%s/%s.json; echo %s >>%s/log", n.dir, word, word, n.dir)
}

func (n notes) state(word string) specs.State {
	n.t.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(n.read(word+".json")), &s); err != nil {
		n.t.Fatalf("%s: %v", word, err)
	}
	return s
}

// The host's hooks run at their stages, in their order, each once, and get the state.
func TestHostHooks(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
		n := newNotes(t)
		sh := func(stage, word string) string { return hostScript(stage, n.note(word)) }
		never := strings.Replace(sh("prestart", "never"), `"always":true`, `"commands":["/no/such"]`, 1)
		run := startTask(t, v.image, v.with(withHostHooks(t, map[string]string{
			"30-stop.json":               sh("poststop", "poststop"),
			"20-Runtime.json":            sh("createRuntime", "createRuntime"),
			"10-start.json":              sh("prestart", "prestart"),
			"15-annotated.json":          strings.Replace(sh("prestart", "annotated"), `"always":true`, `"annotations":{"^com\\.example\\.":"^yes$"}`, 1),
			"40-never.json":              never,
			vendorHook + "10-start.json": sh("prestart", "hidden"),
			vendorHook + "50-up.json":    sh("poststart", "poststart"),
			"README":                     "not a hook",
		}), withAnnotation("com.example.audit", "yes"), withArgs("sh", "-c", "sleep 1; exit 7"))...)
		if code := run.Wait(runLimit); code != 7 {
			t.Errorf("exit status %d", code)
		}
		n.want("log", "prestart\nannotated\ncreateRuntime\npoststart\n")
		pid := int(run.Task.Pid())
		run.Delete()
		n.want("log", "prestart\nannotated\ncreateRuntime\npoststart\npoststop\n")
		for word, want := range map[string]specs.ContainerState{"prestart": "creating", "createRuntime": "creating", "poststart": "running", "poststop": "stopped"} {
			s := n.state(word)
			if s.ID != run.ID || s.Bundle != run.bundle() || s.Status != want || s.Annotations["com.example.audit"] != "yes" || (s.Pid == pid) == (word == "poststop") {
				t.Errorf("%s: %+v", word, s)
			}
		}
		for key, want := range map[string]string{"exit-code": "7", "exit-signal": "", "exit-reason": "exit"} {
			if got := n.state("poststop").Annotations["containerd-shim-rich."+key]; got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
	})
}

// Without the option the host's hooks are not for this runtime.
func TestHostHooksOff(t *testing.T) {
	t.Parallel()
	n := newNotes(t)
	files := newHostFiles(t, map[string]string{hostHookFile + "hook.json": hostScript("prestart", n.note("prestart")), hostHookFile + "bad.json": "x"})
	if got := runTask(t, imageBusybox, runLimit, withHost(files), withArgs("true")); got.Code != 0 {
		t.Errorf("got %+v", got)
	}
	n.want("log", "")
}

// A host's hook that fails, or hangs, or cannot be run, fails Create, and poststop hooks undo what others did.
func TestHostHookFails(t *testing.T) {
	for name, c := range map[string]struct {
		hook  string
		words []string
	}{
		"status":           {hostScript("createRuntime", "echo why >&2; exit 7"), []string{"/bin/sh", "createRuntime hook", "exit status 7", "why"}},
		"hangs":            {hostHook("/bin/sh", []string{"sh", "-c", "sleep 100 & echo waiting >&2; sleep 100"}, 1, "prestart"), []string{"/bin/sh", "prestart hook", "waiting"}},
		"default":          {hostScript("prestart", "sleep 100"), []string{"/bin/sh", "prestart hook", "5"}},
		"missing":          {hostHook("/no/such/hook", nil, 0, "createRuntime"), []string{"/no/such/hook", "no such file"}},
		"in the container": {hostHook("/bin/sh", []string{"sh", "-c", "echo inside >&2; exit 3"}, 0, "createContainer"), []string{"/bin/sh", "inside"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNotes(t)
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBookworm, withInit("systemd"), withHostHooks(t, map[string]string{
				"1.json": hostScript("prestart", n.note("prestart")), "2.json": c.hook,
				"3.json": hostScript("createRuntime", n.note("later")),
				"4.json": hostScript("poststop", n.note("first")+"; exit 1"), "5.json": hostScript("poststop", n.note("second")),
			}))
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			want := "prestart\nfirst\nsecond\n"
			if name == "in the container" {
				want = "prestart\nlater\nfirst\nsecond\n"
			}
			n.want("log", want)
			compare()
		})
	}
}

// What fails later than the hooks is undone as well.
func TestB28CreateFails(t *testing.T) {
	n := newNotes(t)
	compare := snapshotHost(t)
	_, err := tryTask(t, imageBusybox, withInit("none"), withArgs("/no/such/program"), withHostHooks(t, map[string]string{
		"1.json": hostScript("createRuntime", n.note("createRuntime")), "2.json": hostScript("poststop", n.note("poststop")),
	}))
	if err == nil {
		t.Fatal("it was created")
	}
	n.want("log", "createRuntime\npoststop\n")
	compare()
}

// What a host's hook leaves running with its output open holds nothing up.
func TestHostHookDaemon(t *testing.T) {
	t.Parallel()
	n := newNotes(t)
	files := map[string]string{}
	for _, stage := range []string{"prestart", "createRuntime", "poststart", "poststop"} {
		files[stage+".json"] = hostHook("/bin/sh", []string{"sh", "-c", "(while test -d " + n.dir + "; do sleep 0.1; done) & " + n.note(stage)}, 600, stage)
	}
	run := startTask(t, imageBusybox, withHostHooks(t, files), withArgs("sh", "-c", "sleep 1"))
	run.Wait(runLimit)
	run.Delete()
	for _, stage := range []string{"prestart", "createRuntime", "poststart", "poststop"} {
		if n.state(stage).ID != run.ID {
			t.Errorf("%s did not run", stage)
		}
	}
}

// A poststart hook that fails ends the container (runtime-spec, Lifecycle 9).
func TestHostHookPoststartFails(t *testing.T) {
	t.Parallel()
	n := newNotes(t)
	run := newTask(t, imageBusybox, withHostHooks(t, map[string]string{
		"1.json": hostScript("poststart", "echo why >&2; exit 7"), "2.json": hostScript("poststop", n.note("poststop")),
	}), withArgs("sleep", "1000"))
	ctx, cancel := private.within(callLimit)
	defer cancel()
	if err := run.Task.Start(ctx); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("start: %v", err)
	}
	run.Wait(runLimit)
	run.Delete()
	n.want("log", "poststop\n")
}

// A file that is wrong, or that others than root can write, is no hook to be left out in silence.
func TestHostHookFiles(t *testing.T) {
	n := newNotes(t)
	good := hostScript("prestart", n.note("prestart"))
	for name, c := range map[string]struct {
		content string
		change  func(h *hostFiles) error
		words   []string
	}{
		"stage":     {strings.Replace(good, `["prestart"]`, `["prestrat"]`, 1), nil, []string{"stages", `"prestrat"`, `"prestart"`}},
		"no JSON":   {"hook: /bin/true", nil, []string{"invalid character"}},
		"others":    {good, func(h *hostFiles) error { return os.Chmod(h.Path(hostHookFile+"a.json"), 0o666) }, []string{"0666", "chmod go-w"}},
		"owner":     {good, func(h *hostFiles) error { return os.Chown(h.Path(hostHookFile+"a.json"), 1234, 0) }, []string{"1234", "chown"}},
		"directory": {good, func(h *hostFiles) error { return os.Chmod(h.Path(hostHookFile), 0o775) }, []string{"0775", "chmod go-w"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostFiles(t, map[string]string{hostOptions: "host-hooks = \"yes\"\n", hostHookFile + "a.json": c.content})
			if c.change != nil {
				if err := c.change(h); err != nil {
					t.Fatal(err)
				}
			}
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBusybox, withHost(h), withArgs("true"))
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range append(c.words, hostHookFile[:len(hostHookFile)-1]) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			compare()
		})
	}
	n.want("log", "")
}

// The host's hooks run once as well, however the container ends.
func TestB28HostEnds(t *testing.T) {
	t.Parallel()
	trap := "trap 'exit 5' TERM; " + ready + idle
	for _, c := range []struct {
		name, cmd string
		end       func(run *task, log *eventLog)
		want      string
	}{
		{"exit", "exit 3", nil, "3 exit"},
		{"OOM", "exec tail /dev/zero", nil, "137 oom"},
		{"TERM", trap, func(run *task, _ *eventLog) { run.Kill(syscall.SIGTERM) }, "5 stop"},
		{"KILL", trap, func(run *task, _ *eventLog) { run.Kill(syscall.SIGKILL) }, "137 kill"},
		{"shim killed", trap, func(run *task, log *eventLog) { run.killedShim(log) }, "137 lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{systemdBookworm, plain}, func(t *testing.T, v variant) {
				n := newNotes(t)
				id := newID(t)
				log := subscribe(t, id)
				run := startTask(t, v.image, v.with(withID(id), withSpec(oci.WithMemoryLimit(96<<20)), withHostHooks(t, map[string]string{
					"1.json": hostScript("poststop", "echo first >>"+n.dir+"/log; exit 1"), "2.json": hostScript("poststop", n.note("second")),
				}), withArgs("sh", "-c", c.cmd))...)
				if c.end != nil {
					run.WaitOutput("ready", runLimit)
					c.end(run, log)
				}
				log.Wait(runtime.TaskExitEventTopic, runLimit)
				if c.name != "shim killed" {
					run.Wait(runLimit)
					run.Delete()
				}
				eventually(t, runLimit, "the last hook", func() error {
					if n.read("log") != "first\nsecond\n" {
						return errors.New(n.read("log"))
					}
					return nil
				})
				a := n.state("second").Annotations
				if got := a["containerd-shim-rich.exit-code"] + " " + a["containerd-shim-rich.exit-reason"]; got != c.want {
					t.Errorf("the state says %q, want %q", got, c.want)
				}
			})
		})
	}
}

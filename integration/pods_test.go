package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/integration/containerdtest"
)

// Containers that share a shim. Not parallel: the host is compared, and containerd restarted.

// podAs puts a container into a pod as CRI does.
func podAs(sandbox, kind, name string) taskOption {
	return func(s *taskSettings) {
		withAnnotation("io.kubernetes.cri.sandbox-id", sandbox)(s)
		withAnnotation("io.kubernetes.cri.container-type", kind)(s)
		if kind == "container" {
			withAnnotation("io.kubernetes.cri.container-name", name)(s)
		}
	}
}

// shims finds the shims of some containers. A shim has the id of the first one that it served.
func shims(t *testing.T, ids ...string) []int {
	t.Helper()
	processes, err := containerdtest.Processes(private.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, p := range processes {
		for _, id := range ids {
			if strings.Contains(p.Text, "containerd-shim-rich-v2") && strings.Contains(p.Text+" ", "-id "+id+" ") {
				found = append(found, p.Pid)
			}
		}
	}
	return found
}

// untouched fails unless the container runs just as its spec says.
func (r *task) untouched() {
	r.t.Helper()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	want, err := r.Container.Spec(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	content, err := os.ReadFile(r.bundle("config.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	got := &specs.Spec{}
	if err := json.Unmarshal(content, got); err != nil {
		r.t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("config.json is %s", content)
	}
	for _, file := range []string{"config.orig.json", "rich/run", "rich/bin"} {
		if _, err := os.Lstat(r.bundle(file)); !errors.Is(err, os.ErrNotExist) {
			r.t.Errorf("%s: %v, want it not to be there", file, err)
		}
	}
	r.waitCommandLine(want.Process.Args...)
	if lines := r.commandLines(); len(lines) != 1 {
		r.t.Errorf("the processes are %q, want only %q", lines, want.Process.Args)
	}
}

func TestB22Pod(t *testing.T) {
	for name, member := range map[string]func(group string) func(kind, name string) taskOption{
		"sandbox id": func(group string) func(kind, name string) taskOption {
			return func(kind, name string) taskOption { return podAs(group, kind, name) }
		},
		"group": func(group string) func(kind, name string) taskOption {
			return func(kind, name string) taskOption {
				return func(s *taskSettings) {
					withAnnotation("io.containerd.runc.v2.group", group)(s)
					// Another pod than the group's, to see which of the two counts.
					podAs(group+"-"+name, kind, name)(s)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			group := newID(t)
			in := member(group)
			pause := startTask(t, imageScratch, withID(group), in("sandbox", ""), withInit("systemd"), withArgs("/hello", "sleep"))
			pause.untouched()
			if got := runTask(t, imageBookworm, runLimit, in("container", "setup"), withInit("systemd"), withArgs("sh", "-c", "exit 9")); got.Code != 9 {
				t.Errorf("the init container: %+v", got)
			}
			const stoppable = "trap 'exit 5' TERM; " + ready + idle
			app := startTask(t, imageBookworm, in("container", "app"), withInit("none"), withRich("app.init", "systemd"), withArgs("sh", "-c", stoppable))
			sideID := newID(t)
			side := func() *task {
				return startTask(t, imageBusybox, withID(sideID), in("container", "side"), withInit("systemd"), withRich("side.init", "none"), withArgs("sh", "-c", stoppable))
			}
			run := side()
			app.WaitOutput("ready\n", runLimit)
			run.WaitOutput("ready\n", runLimit)
			if lines := app.commandLines(); !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "systemd") }) {
				t.Errorf("the app has no systemd: %q", lines)
			}
			run.untouchedBy("systemd")
			ids := []string{group, app.ID, sideID}
			if found := shims(t, ids...); len(found) != 1 {
				t.Errorf("the shims are %v, want one", found)
			}
			for range 2 {
				run.stop()
				run = side()
				run.WaitOutput("ready\n", runLimit)
			}
			// The shim began in the bundle that goes now.
			pause.Kill(syscall.SIGKILL)
			pause.Wait(runLimit)
			pause.Delete()
			if got := app.Exec("sh", "-c", "exit 4"); got.Code != 4 {
				t.Errorf("exec: %+v", got)
			}
			private.crash(t)
			private.resume(t)
			app.reattach()
			run.reattach()
			for _, init := range []string{"systemd", "none"} {
				late := runTask(t, imageBookworm, runLimit, in("container", "late"), withInit(init), withArgs("sh", "-c", "echo late; exit 3"))
				if late.Code != 3 || late.Stdout != "late\n" {
					t.Errorf("a container that came late: %+v", late)
				}
			}
			if found := shims(t, ids...); len(found) != 1 {
				t.Errorf("the shims are %v, want one", found)
			}
			app.stop()
			run.stop()
			compare()
		})
	}
}

// untouchedBy fails if a process of the container has a word in its command line.
func (r *task) untouchedBy(word string) {
	r.t.Helper()
	for _, line := range r.commandLines() {
		if strings.Contains(line, word) {
			r.t.Errorf("there is a process %q", line)
		}
	}
}

// When the shim of a pod is killed, all its containers end, and its socket goes although the first container is no more.
func TestB22PodShimKilled(t *testing.T) {
	compare := snapshotHost(t)
	pod := newID(t)
	pause := startTask(t, imageScratch, withID(pod), podAs(pod, "sandbox", ""), withArgs("/hello", "sleep"))
	shim := pause.shimPID()
	var runs []*task
	var logs []*eventLog
	for i, v := range lifeVariants {
		run, log := watch(t, v.image, v.with(podAs(pod, "container", fmt.Sprintf("c%d", i)), withArgs("sh", "-c", ready+idle))...)
		run.WaitOutput("ready\n", runLimit)
		runs, logs = append(runs, run), append(logs, log)
	}
	pause.Kill(syscall.SIGKILL)
	pause.Wait(runLimit)
	pause.Delete()
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i, run := range runs {
		if exit := logs[i].Wait(runtime.TaskExitEventTopic, runLimit).(*events.TaskExit); exit.ExitStatus != 137 {
			t.Errorf("the exit event is %v, want status 137", exit)
		}
		run.Task.IO().Cancel()
		run.Task.IO().Close()
	}
	compare()
}

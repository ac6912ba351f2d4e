package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"containerd-shim-rich/integration/containerdtest"
)

// What is left when a shim is killed, and what the call cleans up that containerd makes then. Not parallel: the host is compared.

// killed kills the shim and waits until containerd has deleted the task, which must have ended with a status.
func (r *task) killed(log *eventLog, want int) {
	r.t.Helper()
	if err := syscall.Kill(r.shimPID(), syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
	// containerd repeats the exit that a shim has told before it was killed.
	var exit *events.TaskExit
	for _, e := range log.Events() {
		if event, ok := e.Event.(*events.TaskExit); ok && event.ID == r.ID {
			exit = event
		}
	}
	if exit == nil || int(exit.ExitStatus) != want || exit.Pid == 0 {
		r.t.Errorf("the exit event is %v, want status %d", exit, want)
	}
	r.Task.IO().Cancel()
	r.Task.IO().Close()
}

func TestShimKilled(t *testing.T) {
	freeze := func(r *task) {
		ctx, cancel := private.within(callLimit)
		defer cancel()
		// While an init starts many processes, the kernel does not get them all to stand still.
		eventually(r.t, callLimit, "pause", func() error { return r.Task.Pause(ctx) })
	}
	for _, c := range []struct {
		name string
		life func(r *task)
		want int
	}{
		{"created", func(*task) {}, 137},
		{"running", func(r *task) { r.Start(); r.WaitOutput("ready\n", runLimit) }, 137},
		{"paused", func(r *task) { r.Start(); r.WaitOutput("ready\n", runLimit); freeze(r) }, 137},
		{"stopped", func(r *task) {
			r.Start()
			r.WaitOutput("ready\n", runLimit)
			r.Kill(syscall.SIGTERM)
			if code := r.Wait(runLimit); code != 5 {
				r.t.Errorf("exit status %d, want 5", code)
			}
		}, 5},
	} {
		for _, v := range lifeVariants {
			t.Run(c.name+" "+v.name, func(t *testing.T) {
				compare := snapshotHost(t)
				var before []string
				id := newID(t)
				log := subscribe(t, id)
				run := newTask(t, v.image, v.with(withID(id), withoutRunMount(), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle), withWritten(&before))...)
				c.life(run)
				run.killed(log, c.want)
				compare()
				if c.name == "created" {
					sameLines(t, "the root file system", run.written(), before)
				}
			})
		}
	}
}

// killShimOf kills the shim of a container as soon as it is there and a time has passed, unless stop is closed before.
func killShimOf(id string, after time.Duration, stop <-chan struct{}) (killed bool) {
	for {
		select {
		case <-stop:
			return false
		case <-time.After(2 * time.Millisecond):
		}
		processes, err := containerdtest.Processes(private.Dir)
		if err != nil {
			return false
		}
		for _, p := range processes {
			// Not the process that starts it.
			if strings.Contains(p.Text, "containerd-shim-rich-v2") && strings.Contains(p.Text, "-id "+id+" ") && !strings.HasSuffix(p.Text, " start") {
				select {
				case <-stop:
					return false
				case <-time.After(after):
				}
				return syscall.Kill(p.Pid, syscall.SIGKILL) == nil
			}
		}
	}
}

// At whatever point the shim is killed, what it has made so far goes away.
func TestShimKilledInCreate(t *testing.T) {
	const rounds, longest = 6, 300 * time.Millisecond
	for _, v := range lifeVariants {
		t.Run(v.name, func(t *testing.T) {
			compare := snapshotHost(t)
			var kills atomic.Int32
			for range rounds {
				id, stop, done := newID(t), make(chan struct{}), make(chan struct{})
				after := rand.N(longest)
				go func() {
					defer close(done)
					if killShimOf(id, after, stop) {
						kills.Add(1)
					}
				}()
				var before []string
				run, err := tryTask(t, v.image, v.with(withID(id), withoutRunMount(), withArgs("sleep", "1000"), withWritten(&before))...)
				if err == nil {
					<-done // created before the time was over
					run.Task.IO().Cancel()
					run.Task.IO().Close()
				}
				close(stop)
				<-done
				eventually(t, runLimit, fmt.Sprintf("the end of the bundle, killed after %v", after), func() error {
					_, err := os.Stat(run.bundle())
					if errors.Is(err, os.ErrNotExist) {
						return nil
					}
					return fmt.Errorf("it is there: %w", err)
				})
				sameLines(t, fmt.Sprintf("the root file system, killed after %v", after), run.written(), before)
			}
			if kills.Load() == 0 {
				t.Error("no shim was killed")
			}
			compare()
		})
	}
}

// While a hook of the bundle runs, libcontainer has not stored anything yet.
func TestShimKilledInHook(t *testing.T) {
	dir := t.TempDir()
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\ntouch \"$1\"\nsleep 1000 &\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for phase, set := range map[string]func(*specs.Hooks, []specs.Hook){
		"prestart":        func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l }, //nolint:staticcheck // deprecated, and still what many use
		"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
		"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
	} {
		t.Run(phase, func(t *testing.T) {
			compare := snapshotHost(t)
			id, stop := newID(t), make(chan struct{})
			defer close(stop)
			began, stopped := filepath.Join(dir, phase), filepath.Join(dir, phase+"-stopped")
			go func() {
				for {
					if _, err := os.Stat(began); err == nil {
						killShimOf(id, 0, stop)
						return
					}
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			}()
			_, err := tryTask(t, imageBookworm, withID(id), withInit("systemd"), withHooks(func(h *specs.Hooks) {
				set(h, []specs.Hook{{Path: hook, Args: []string{"hook", began}}})
				h.Poststop = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo stopped >> " + stopped}}}
			}))
			if err == nil {
				t.Fatal("it was created")
			}
			eventually(t, runLimit, "the poststop hook", func() error {
				_, err := os.Stat(stopped)
				return err
			})
			compare()
			if lines := readLines(t, stopped); len(lines) != 1 {
				t.Errorf("the poststop hook ran %d times", len(lines))
			}
		})
	}
}

// withHooks sets the hooks of the bundle's config.json.
func withHooks(set func(*specs.Hooks)) taskOption {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		if spec.Hooks == nil {
			spec.Hooks = &specs.Hooks{}
		}
		set(spec.Hooks)
		return nil
	})
}

// A crash of the host can cut off any file. What else there is must do.
func TestShimKilledFilesCut(t *testing.T) {
	for _, c := range []struct {
		file string
		cut  func(size int) int
	}{
		{"rich/made.json", func(size int) int { return size / 2 }},
		{"rich/made.json", func(int) int { return 0 }},
		{"rich/exit.json", func(int) int { return 0 }},
		{"config.json", func(size int) int { return size / 2 }},
		{"config.orig.json", func(int) int { return 0 }},
		{"rich/state/ID/state.json", func(size int) int { return size / 2 }},
	} {
		t.Run(fmt.Sprintf("%s to %d of 100", c.file, c.cut(100)), func(t *testing.T) {
			compare := snapshotHost(t)
			run, log := watch(t, imageBusybox, withInit("dumb-init"), withArgs("sh", "-c", ready+idle))
			run.WaitOutput("ready\n", runLimit)
			path := run.bundle(strings.ReplaceAll(c.file, "ID", run.ID))
			content, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content[:c.cut(len(content))], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(run.shimPID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			exit := log.Wait(runtime.TaskExitEventTopic, runLimit).(*events.TaskExit)
			if exit.ExitStatus != 137 {
				t.Errorf("the exit event is %v, want status 137", exit)
			}
			run.Task.IO().Cancel()
			run.Task.IO().Close()
			compare()
		})
	}
}

// deleteCall makes the call in dir that containerd makes for a container whose shim is gone.
func deleteCall(t *testing.T, dir, id string) *taskapi.DeleteResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, buildPath("bin/containerd-shim-rich-v2"),
		"-namespace", testNamespace, "-address", private.Address(), "-id", id, "-bundle", filepath.Join(filepath.Dir(dir), id), "delete")
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("delete: %v\n%s", err, stderr.String())
	}
	response := &taskapi.DeleteResponse{}
	if err := proto.Unmarshal(stdout.Bytes(), response); err != nil {
		t.Fatal(err)
	}
	if at := response.ExitedAt.AsTime(); time.Since(at) < 0 || time.Since(at) > callLimit {
		t.Errorf("it ended at %v", at)
	}
	return response
}

func TestDeleteCall(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string) error{
		"no bundle":    func(_ *testing.T, dir string) error { return os.Remove(dir) },
		"empty bundle": func(*testing.T, string) error { return nil },
		"half a config.json": func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"ociVersion":"1.2.0","process":{"ar`), 0o644)
		},
		"nothing made yet": func(_ *testing.T, dir string) error { return os.Mkdir(filepath.Join(dir, "rich"), 0o711) },
		"garbage in made.json": func(_ *testing.T, dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "rich"), 0o711), os.WriteFile(filepath.Join(dir, "rich/made.json"), []byte(`[{"rootfs":`), 0o600))
		},
		"wrong types in made.json": func(_ *testing.T, dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "rich"), 0o711), os.WriteFile(filepath.Join(dir, "rich/made.json"), []byte(`{"rootfs":[1]}`), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := t.TempDir()
			other, dir := filepath.Join(all, "other"), filepath.Join(all, "id")
			for _, d := range []string{other, dir} {
				if err := os.Mkdir(d, 0o711); err != nil {
					t.Fatal(err)
				}
			}
			if err := prepare(t, dir); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if response := deleteCall(t, other, "id"); response.ExitStatus != 137 || response.Pid != 0 {
					t.Errorf("got %v", response)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "rich")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the runtime's folder: %v, want it gone", err)
			}
		})
	}
}

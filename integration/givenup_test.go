package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// What becomes of a create whose client does not wait for it. Not parallel: the host is compared.

// ways are how a client gives up.
var ways = map[string]func(context.Context) (context.Context, context.CancelFunc){
	// The shim hears of it only by what containerd does next.
	"cancelled": context.WithCancel,
	"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 3*time.Second)
	},
}

// givenUp creates the task of a container until the file began is there, and gives that up.
func (r *task) givenUp(way func(context.Context) (context.Context, context.CancelFunc), streams fixedIO, began string) {
	r.t.Helper()
	ctx, cancel := way(r.daemon.context())
	defer cancel()
	made := make(chan error)
	go func() {
		_, err := r.Container.NewTask(ctx, streams.create)
		made <- err
	}()
	eventually(r.t, runLimit, "the create", func() error {
		_, err := os.Stat(began)
		return err
	})
	if _, limited := ctx.Deadline(); !limited {
		cancel()
	}
	if err := <-made; err == nil {
		r.t.Fatal("it was created")
	}
}

// hang is what a create waits for: for longer than a test does, once armed.
func hang(t *testing.T) (script string, arm func(), began string) {
	dir := t.TempDir()
	script, armed, began := filepath.Join(dir, "hang"), filepath.Join(dir, "armed"), filepath.Join(dir, "began")
	text := fmt.Sprintf("#!/bin/sh\ntest -e %s || exit 0\ntouch %s\nsleep 25 &\nwait\n", armed, began)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, func() {
		if err := os.WriteFile(armed, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}, began
}

// discard deletes the task of a container that was never started, and keeps the container.
func (r *task) discard() {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if _, err := r.Task.Delete(ctx, containerd.WithProcessKill); err != nil {
		r.t.Fatal(err)
	}
	r.Task = nil
}

func TestCreateGivenUp(t *testing.T) {
	for name, way := range ways {
		for _, v := range []variant{systemdBookworm, plain} {
			for _, what := range []string{"logger", "prestart", "createRuntime", "createContainer"} {
				t.Run(name+" "+v.name+" "+what, func(t *testing.T) {
					script, arm, began := hang(t)
					streams, opts := fixedIO{}, v.with(withArgs("sleep", "1000"))
					if what == "logger" {
						streams.Stdout = "binary://" + script
					} else {
						opts = append(opts, withHook(what, specs.Hook{Path: script}))
					}
					after := filepath.Join(t.TempDir(), "after")
					compare := snapshotHost(t)
					run := newTask(t, v.image, append(opts, withHook("poststop", shellHook("echo x >> "+after)))...)
					run.discard()
					if err := os.Remove(after); err != nil {
						t.Error(err)
					}
					log := subscribe(t, run.ID)
					arm()
					run.givenUp(way, streams, began)
					compare()
					if n := lineCount(after); n != 1 {
						t.Errorf("the poststop hook ran %d times", n)
					}
					if got := log.Topics(); len(got) != 0 {
						t.Errorf("got events %v", got)
					}
				})
			}
		}
	}
}

// The other containers of a pod stay, and the shim ends with the last of them.
func TestCreateGivenUpInPod(t *testing.T) {
	compare := snapshotHost(t)
	pod := newID(t)
	pause := startTask(t, imageScratch, withID(pod), podAs(pod, "sandbox", ""), withArgs("/hello", "sleep"))
	pause.waitCommandLine("/hello", "sleep")
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			script, arm, began := hang(t)
			compare := snapshotHost(t)
			run := newTask(t, imageBookworm, podAs(pod, "container", "app"), withInit("systemd"), withArgs("sleep", "1000"),
				withHook("createRuntime", specs.Hook{Path: script}))
			run.discard()
			arm()
			run.givenUp(way, fixedIO{}, began)
			compare()
			pause.running()
		})
	}
	late := runTask(t, imageBusybox, runLimit, podAs(pod, "container", "late"), withInit("none"), withArgs("sh", "-c", "exit 3"))
	if late.Code != 3 {
		t.Errorf("a container that came late: %+v", late)
	}
	pause.Kill(syscall.SIGKILL)
	pause.Wait(runLimit)
	pause.Delete()
	compare()
}

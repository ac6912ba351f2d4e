package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// The kernel's last act on a container is told before its end.
func TestOOMBeforeExit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		variant
		limit  uint64
		rounds int
	}{
		{variant{"none", imageBusybox, "none"}, 32 << 20, 10},
		{variant{"dumb-init", imageBusybox, "dumb-init"}, 32 << 20, 4},
		{systemdBookworm, 128 << 20, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for range c.rounds {
				// It keeps all that it reads, as there is no end of a line.
				run, log := watch(t, c.image, c.with(withSpec(oci.WithMemoryLimit(c.limit)), withArgs("tail", "/dev/zero"))...)
				run.outcome(log, 137)
				topics := log.Topics()
				oom, exit := slices.Index(topics, runtime.TaskOOMEventTopic), slices.IndexFunc(log.Events(), run.isExit)
				if oom < 0 || oom > exit {
					t.Errorf("got events %v, want %s before %s", topics, runtime.TaskOOMEventTopic, runtime.TaskExitEventTopic)
				}
			}
		})
	}
}

// A create that fails when pid 1 is there already ends the watch, before the end of the cgroup looks like one more event.
func TestOOMNoEventOfFailedCreate(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.script("agent", "sleep 1000", "memory = \"16m\"")
	pod := newID(t)
	pause := startTask(t, imageScratch, withID(pod), podAs(pod, "sandbox", ""), o.with("agent"), withArgs("/hello", "sleep"))
	files := countFiles(t, pause.shimPID())
	id := newID(t)
	log := subscribe(t, id)
	// The last step is to make the cgroup of the component.
	taken := filepath.Join("/sys/fs/cgroup/memory", private.Cgroup(), id, "rich-agent")
	if unified() {
		taken = filepath.Join("/sys/fs/cgroup", private.Cgroup(), id, "rich-main")
	}
	for range 3 {
		_, err := tryTask(t, imageBusybox, withID(id), podAs(pod, "container", "app"), withInit("dumb-init"), o.with("agent"),
			withHook("createRuntime", shellHook("mkdir "+taken)))
		if err == nil || !strings.Contains(err.Error(), "file exists") {
			t.Fatalf("got %v, want that the cgroup is taken", err)
		}
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := private.Client.ContainerService().Delete(ctx, id); err != nil {
			t.Error(err)
		}
		if err := private.Client.SnapshotService("overlayfs").Remove(ctx, id); err != nil {
			t.Error(err)
		}
	}
	eventually(t, runLimit, "the files of the shim", func() error {
		if now := countFiles(t, pause.shimPID()); now > files {
			return fmt.Errorf("it has %d open, had %d", now, files)
		}
		return nil
	})
	// Whatever there was to tell comes before this.
	late := newID(t)
	lateLog := subscribe(t, late)
	runTask(t, imageBusybox, runLimit, withID(late), podAs(pod, "container", "late"), o.with("agent"), withInit("dumb-init"), withArgs("true"))
	lateLog.Wait(runtime.TaskDeleteEventTopic, runLimit)
	if got := log.Topics(); len(got) != 0 {
		t.Errorf("got events %v", got)
	}
	pause.Kill(syscall.SIGKILL)
	pause.Wait(runLimit)
	pause.Delete()
}

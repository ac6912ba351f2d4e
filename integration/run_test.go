package integration

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/runtime"
)

func TestRunBusybox(t *testing.T) {
	compare := snapshotHost(t)
	got := runTask(t, imageBusybox, runLimit, withInit("none"),
		withArgs("sh", "-c", "echo out; echo err >&2; exit 3"))
	if want := (result{Stdout: "out\n", Stderr: "err\n", Code: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	compare()
}

func TestEventOrder(t *testing.T) {
	id := newID(t)
	log := subscribe(t, id)
	run := startTask(t, imageScratch, withID(id), withInit("none"), withArgs("/hello", "exit", "7"))
	if code := run.Wait(runLimit); code != 7 {
		t.Errorf("exit status %d, want 7", code)
	}
	if code := run.Delete(); code != 7 {
		t.Errorf("delete reports %d, want 7", code)
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
	want := []string{
		runtime.TaskCreateEventTopic, runtime.TaskStartEventTopic,
		runtime.TaskExitEventTopic, runtime.TaskDeleteEventTopic,
	}
	if got := log.Topics(); !slices.Equal(got, want) {
		t.Errorf("got events %v, want %v", got, want)
	}
	if exit := log.Wait(runtime.TaskExitEventTopic, 0).(*events.TaskExit); exit.ExitStatus != 7 {
		t.Errorf("the exit event says %d, want 7", exit.ExitStatus)
	}
}

// dumb-init and the launcher need nothing of the image: this one has neither
// a C library nor a shell.
func TestDumbInitScratch(t *testing.T) {
	compare := snapshotHost(t)
	got := runTask(t, imageScratch, runLimit, withInit("dumb-init"), withArgs("/hello", "exit", "4"))
	if got.Code != 4 || got.Stderr != "" {
		t.Errorf("got %+v", got)
	}
	got = runTask(t, imageScratch, runLimit, withInit("dumb-init"), withArgs("/no/such/program"))
	if got.Code != 127 || got.Stdout != "" {
		t.Errorf("got %+v", got)
	}
	compare()
}

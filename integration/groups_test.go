package integration

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// Containers of one group share a shim, whoever of them is first.

// startTogether creates and starts containers of a group at once.
func startTogether(t *testing.T, group string, ids ...string) []*task {
	t.Helper()
	tasks := make([]*task, len(ids))
	errs := make([]error, len(ids))
	var starting sync.WaitGroup
	for i, id := range ids {
		starting.Go(func() {
			if tasks[i], errs[i] = tryTask(t, imageBusybox, withID(id), withInit("none"),
				withAnnotation("io.containerd.runc.v2.group", group), withArgs("sleep", "1000")); errs[i] == nil {
				ctx, cancel := private.within(callLimit)
				defer cancel()
				errs[i] = tasks[i].Task.Start(ctx)
			}
		})
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	return slices.DeleteFunc(tasks, func(r *task) bool { return r == nil || r.Task == nil })
}

func oneShim(t *testing.T, tasks []*task) int {
	t.Helper()
	var ids []string
	for _, r := range tasks {
		ids = append(ids, r.ID)
	}
	found := shims(t, ids...)
	if len(found) != 1 {
		t.Fatalf("the shims are %v, want one", found)
	}
	return found[0]
}

// Not parallel: the host is compared.
func TestGroupStartedTogether(t *testing.T) {
	const rounds, members = 6, 6
	private.image(t, imageBusybox)
	compare := snapshotHost(t)
	for round := range rounds {
		group := newID(t)
		ids := make([]string, members)
		for i := range ids {
			ids[i] = newID(t)
		}
		tasks := startTogether(t, group, ids...)
		shim := oneShim(t, tasks)
		if round%2 == 0 {
			more := []string{newID(t), newID(t)}
			stopped := make(chan []*task)
			if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			go func() { stopped <- startTogether(t, group, more...) }()
			// A shim that does not answer is found all the same.
			err := poll(runLimit, func() error {
				for _, id := range more {
					if private.LogTail("connecting to shim "+id, 1) == "" {
						return fmt.Errorf("the start of %s has not found a shim", id)
					}
				}
				return nil
			})
			if err := errors.Join(err, syscall.Kill(shim, syscall.SIGCONT)); err != nil {
				t.Error(err)
			}
			tasks = append(tasks, <-stopped...)
			oneShim(t, tasks)
		}
		var ending sync.WaitGroup
		for _, r := range tasks {
			ending.Go(func() {
				r.Kill(syscall.SIGKILL)
				r.Wait(runLimit)
				r.Delete()
			})
		}
		ending.Wait()
	}
	compare()
}

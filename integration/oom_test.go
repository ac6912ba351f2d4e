package integration

import (
	"slices"
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

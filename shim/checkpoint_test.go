package shim

import (
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

func TestCheckpoint(t *testing.T) {
	s := &service{}
	_, err := s.Checkpoint(t.Context(), &task.CheckpointTaskRequest{ID: "id"})
	if err := errgrpc.ToNative(err); !errdefs.IsNotImplemented(err) {
		t.Errorf("checkpoint: %v", err)
	}
	_, err = s.Create(t.Context(), &task.CreateTaskRequest{ID: "id", Checkpoint: "/somewhere"})
	if err := errgrpc.ToNative(err); !errdefs.IsNotImplemented(err) {
		t.Errorf("restore: %v", err)
	}
}

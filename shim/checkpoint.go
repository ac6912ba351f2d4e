package shim

import (
	"context"
	"fmt"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Checkpoint is not supported: libcontainer cannot wait for a restored
// container.
func (s *service) Checkpoint(context.Context, *task.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, toRPC(fmt.Errorf("checkpoint: %w", errdefs.ErrNotImplemented))
}

package shim

import (
	"context"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Shutdown ends the shim, unless it still has containers. containerd asks for
// it after a Create that it has given up as well, and never again: one that is
// going on is left to its end, and the shim ends if that is no container.
func (s *service) Shutdown(ctx context.Context, r *task.ShutdownRequest) (*emptypb.Empty, error) {
	s.giveUp(ctx, r.ID)
	s.mu.Lock()
	s.leave = len(s.containers) == len(s.creations)
	s.mu.Unlock()
	s.end()
	return empty, nil
}

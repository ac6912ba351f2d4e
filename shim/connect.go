package shim

import (
	"context"
	"os"

	task "github.com/containerd/containerd/api/runtime/task/v3"
)

// Connect tells a client which processes it talks to.
func (s *service) Connect(_ context.Context, r *task.ConnectRequest) (*task.ConnectResponse, error) {
	response := &task.ConnectResponse{ShimPid: uint32(os.Getpid()), Version: Version}
	if c, err := s.container(r.ID); err == nil {
		response.TaskPid = uint32(c.init.pid)
	}
	return response, nil
}

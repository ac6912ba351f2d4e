package shim

import (
	"context"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/emptypb"
)

// CloseIO lets a process see the end of its standard input.
func (s *service) CloseIO(_ context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if streams := p.stdio(); r.Stdin && streams != nil {
		streams.CloseStdin()
	}
	return empty, nil
}

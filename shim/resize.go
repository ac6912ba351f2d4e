package shim

import (
	"context"
	"fmt"
	"math"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
)

// ResizePty sets the size of a process's terminal.
func (s *service) ResizePty(_ context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	streams := p.stdio()
	if streams == nil || streams.tty == nil {
		if p.streams.terminal {
			return nil, toRPC(fmt.Errorf("resize: the process is not started: %w", errdefs.ErrFailedPrecondition))
		}
		return empty, nil
	}
	if err := streams.tty.resize(uint16(min(r.Height, math.MaxUint16)), uint16(min(r.Width, math.MaxUint16))); err != nil {
		return nil, toRPC(fmt.Errorf("resize: %w", err))
	}
	return empty, nil
}

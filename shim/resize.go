package shim

import (
	"context"
	"fmt"
	"math"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/emptypb"
)

// ResizePty sets the size of a process's terminal.
func (s *service) ResizePty(_ context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := p.resize(winsize{uint16(min(r.Height, math.MaxUint16)), uint16(min(r.Width, math.MaxUint16))}); err != nil {
		return nil, toRPC(fmt.Errorf("resize: %w", err))
	}
	return empty, nil
}

// winsize is the size of a terminal in characters.
type winsize struct{ rows, cols uint16 }

// resize keeps the size for a process that has no terminal yet.
func (p *process) resize(to winsize) error {
	p.mu.Lock()
	streams := p.io
	if streams == nil {
		p.size = to
	}
	p.mu.Unlock()
	if streams == nil {
		return nil
	}
	return streams.Resize(to.rows, to.cols)
}

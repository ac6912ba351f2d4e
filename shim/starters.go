package shim

import (
	"context"
	"fmt"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
)

// maxStarters bounds how many execs of one container are started at once:
// more than the host has processors only wait for each other.
var maxStarters = min(runtime.NumCPU(), processors)

// starters are the handles by which processes are started beside pid 1. A
// handle of libcontainer is locked over the whole start of a process, which a
// container can make last for ever: by stopping what enters it, with a hung
// file system, or at a memory limit. So the handle that signals, pauses and
// removes the container is none of them.
type starters struct {
	load  func() (*libcontainer.Container, error)
	turns chan struct{}
	idle  chan *libcontainer.Container // has the one that is kept, the others may go
}

func newStarters(load func() (*libcontainer.Container, error)) *starters {
	return &starters{load: load, turns: make(chan struct{}, maxStarters), idle: make(chan *libcontainer.Container, 1)}
}

// with calls start with a handle that nobody else starts a process by. It
// waits for its turn until ctx ends.
func (s *starters) with(ctx context.Context, start func(*libcontainer.Container) error) error {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the starts of other processes: %w", context.Cause(ctx))
	}
	defer func() { <-s.turns }()
	var handle *libcontainer.Container
	select {
	case handle = <-s.idle:
	default:
		var err error
		if handle, err = s.load(); err != nil {
			return err
		}
	}
	// Before the turn is another's, who then finds it.
	defer func() {
		select {
		case s.idle <- handle:
		default:
		}
	}()
	return start(handle)
}

// startInside calls start with a handle to start a process by beside pid 1,
// where that is in the container's cgroups. It fails if they are frozen, by
// whom ever: a process that enters them would not get on.
func (c *container) startInside(ctx context.Context, p *libcontainer.Process, start func(*libcontainer.Container) error) error {
	return c.starters.with(ctx, func(handle *libcontainer.Container) error {
		status, err := handle.Status()
		if err != nil {
			return err
		}
		if status == libcontainer.Paused {
			return fmt.Errorf("container %s is frozen: %w", c.id, errdefs.ErrFailedPrecondition)
		}
		return c.inCgroup(p, func() error { return start(handle) })
	})
}

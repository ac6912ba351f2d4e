package shim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"containerd-shim-rich/child"
)

// maxForwarded is the highest signal that dumb-init passes on.
const maxForwarded = 31

// Kill sends a signal to a task or to one of its execs. A request for all
// processes gets no more than that: the end of pid 1 is the end of all. After
// that end it is fulfilled.
func (s *service) Kill(ctx context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, toRPC(err)
	}
	sig := syscall.Signal(r.Signal)
	if r.ExecID == "" {
		if err = c.kill(sig); r.All && (isOver(err) || errdefs.IsNotFound(err)) {
			err = nil
		}
	} else {
		err = p.kill(ctx, sig)
	}
	if err != nil {
		return nil, toRPC(fmt.Errorf("signal %d: %w", r.Signal, err))
	}
	return empty, nil
}

// kill delivers a signal that was sent to an exec.
func (p *process) kill(ctx context.Context, sig syscall.Signal) error {
	if err := p.take(ctx, sig == unix.SIGKILL); err != nil {
		return err
	}
	defer p.leave()
	if err := p.need("signal", tasktypes.Status_RUNNING); err != nil {
		return err
	}
	return p.proc.Signal(sig)
}

// kill delivers a signal that was sent to the task.
func (c *container) kill(sig syscall.Signal) error {
	if err := c.init.need("signal", tasktypes.Status_CREATED, tasktypes.Status_RUNNING); err != nil {
		return err
	}
	if sig == 0 {
		return c.init.proc.Signal(sig)
	}
	do, err := c.life.Signal(sig)
	return errors.Join(err, c.act(do))
}

const (
	// childWait bounds how long dumb-init may take to start its child, which
	// on a busy host is longer than a second.
	childWait = 10 * time.Second
	childPoll = time.Millisecond
)

// signalChild signals the command by way of dumb-init. A signal that came before
// dumb-init listens, or before its child is the command, would be lost, and a stop
// right after the start would not stop anything: as pid 1 dumb-init is not
// ended by a signal that it does not handle, and its child inherits handlers
// that do nothing, until it executes the command.
func (c *container) signalChild(sig syscall.Signal) error {
	command, err := c.child()
	for deadline := time.Now().Add(childWait); err != nil && time.Now().Before(deadline); command, err = c.child() {
		select {
		case <-c.gone:
			return libcontainer.ErrNotRunning
		case <-time.After(childPoll):
		}
	}
	if err == nil {
		defer command.Close()
	}
	if sig > maxForwarded && err == nil {
		return command.Signal(sig)
	}
	return c.init.proc.Signal(sig)
}

// child returns the process that dumb-init has started, once it is the command.
// Before it executes that, it makes itself the leader of a process group.
func (c *container) child() (child.Proc, error) {
	data, err := c.pid1.Read(fmt.Sprintf("task/%d/children", c.init.pid))
	if err != nil {
		return child.Proc{}, err
	}
	// The first child is the command; later ones are orphans that came to pid 1.
	first, _, _ := strings.Cut(string(data), " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return child.Proc{}, fmt.Errorf("dumb-init has no child: %w", err)
	}
	command, err := child.OpenProc(pid)
	if err != nil {
		return child.Proc{}, err
	}
	// Between the list and here the number may have become another's. As long
	// as pid 1 has not been waited for, only its own children have it for a
	// parent.
	switch s, ok := command.Stat(); {
	case !ok || s.Parent != c.init.pid || c.pid1.WaitedFor():
		err = fmt.Errorf("process %d is no child of dumb-init any more", pid)
	case s.Flags&child.FlagForkNoExec != 0:
		err = fmt.Errorf("process %d has not executed the command yet", pid)
	}
	if err != nil {
		command.Close()
	}
	return command, err
}

package shim

import (
	"context"
	"errors"

	"github.com/opencontainers/runc/libcontainer"

	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
)

// act does what follows from a fact in the life of the command. Its error is
// that of a signal.
func (c *container) act(do life.Actions) error {
	if do.CallOff {
		c.hooks.CallOff()
	}
	if do.Show {
		c.server.Show()
	}
	if do.Complain != nil {
		c.init.io.Complain(do.Complain)
	}
	if do.Crashed != nil {
		c.commandCrashed(*do.Crashed)
	}
	if do.Wake {
		c.server.Wake()
	}
	if do.Halt {
		c.askHalt()
	}
	switch {
	case do.Signal != 0:
		return c.init.proc.Signal(do.Signal)
	case do.Forward != 0:
		return c.signalChild(do.Forward)
	case do.Kill:
		aborted := do.Abort && c.hooks.Abort() // pid 1 may be gone already
		if err := c.killAll(); !aborted {
			return err
		}
	}
	return nil
}

// follow is act for those who have nobody to return the error to.
func (c *container) follow(do life.Actions) {
	if err := c.act(do); err != nil && !isOver(err) {
		c.log.WithError(err).Warn("end the container")
	}
}

// inside runs hooks in the running container.
func (c *container) inside() hooks.Runner {
	return c.hooks.Inside(func(ctx context.Context, proc *libcontainer.Process) error {
		return c.startInside(ctx, proc, func(lc *libcontainer.Container) error { return c.children.Start(ctx, lc, proc) })
	}, c.pid1)
}

// prestart runs the prestart hooks, and returns what keeps the command from being
// started. Then the container ends, unless it is about to anyway.
func (c *container) prestart() error {
	err := c.hooks.Prestart(c.inside())
	var do life.Actions
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, hooks.ErrCalledOff):
		do = c.life.PrestartFailed(err)
	case c.shape != initmode.ServiceOfInit:
		do.Kill = true // pid 1 waits to be let go
	}
	if failed := c.act(do); failed != nil && !errors.Is(failed, libcontainer.ErrNotRunning) {
		err = errors.Join(err, failed)
	}
	return err
}

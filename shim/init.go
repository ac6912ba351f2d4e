package shim

import (
	"context"
	"errors"
	"fmt"

	eventstypes "github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be applied
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launcher"
	"containerd-shim-rich/stdio"
)

// startInit starts pid 1 up to the point where it waits for Start.
func (b *builder) startInit(ctx context.Context) error {
	err := b.tryInit(ctx)
	if gone := givenUp(ctx); gone != nil {
		err = errors.Join(gone, err)
	}
	return err
}

func (b *builder) tryInit(ctx context.Context) error {
	proc, err := child.NewProcess(b.spec.Process)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	proc.Init = true
	r := b.request
	b.init = newProcess("", stdio.Names{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}, b.spec.Process)
	b.init.proc = proc
	uid, gid, err := b.hostUser(b.spec.Process.User)
	if err != nil {
		return err
	}
	if err := b.openStreams(ctx, uid, gid); err != nil {
		return err
	}
	if err := b.listen(uid, gid); err != nil {
		return err
	}
	b.closing.add(undone, b.killInit)
	if b.plan.Console {
		err = b.runWithConsole(ctx)
	} else {
		err = b.init.run(ctx, b.children, b.lc)
	}
	if err != nil {
		return err
	}
	pid, err := proc.Pid()
	if err != nil {
		return err
	}
	if b.pid1, err = child.OpenProc(pid); err != nil {
		return err
	}
	b.closing.add(removed, b.pid1.Close)
	b.init.started(pid, tasktypes.Status_CREATED)
	b.starters = newStarters(b.reload)
	return b.watchCgroup(pid, uid, gid)
}

// openStreams connects the task's streams. pid 1 is uid and gid on the host.
func (b *builder) openStreams(ctx context.Context, uid, gid int) (err error) {
	if b.shape != initmode.ServiceOfInit {
		// libcontainer gives them to pid 1's user itself; a launcher may
		// lack the right to do so for the command.
		if uid, gid, err = b.hostRoot(); err != nil {
			return err
		}
	}
	b.closing.add(undone, func() error {
		b.init.closeStreams()
		b.hooks.Release()
		return nil
	})
	return b.init.open(ctx, stdio.Owner{ID: b.id, Namespace: b.namespace, Loggers: b.loggers}, uid, gid)
}

// listen opens what hears what the container says: the sockets of the launchers
// and the init, who are uid and gid on the host, and the output of components.
func (b *builder) listen(uid, gid int) (err error) {
	b.closing.add(ended, b.closeShares) // when no launcher gets them any more
	b.closing.add(ended, b.stopListening)
	if err := b.addComponents(uid, gid); err != nil {
		return err
	}
	if !b.shape.HasInit() && b.components == nil {
		return nil
	}
	if err := b.ownFiles(); err != nil {
		return fmt.Errorf("give files to the command's user: %w", err)
	}
	dir := b.bundle.Path(bundle.RunDir)
	if b.plan.Notify {
		if b.watch, err = launcher.WatchInit(dir, initmode.NotifySocket, uid, gid, b.life, b.noteInit); err != nil {
			return fmt.Errorf("listen for the init: %w", err)
		}
	}
	b.server = launcher.NewServer(launcher.Config{
		Life:       b.life,
		Act:        b.follow,
		Service:    b.plan.Service,
		Child:      b.plan.Child,
		Streams:    b.init.io,
		Components: b.components,
		Watch:      b.watch,
		Prestart:   b.prestart,
		Begins:     b.hooks.Starting,
		Mismatched: b.service.programs.mismatched,
		Show:       b.showCommand,
		Log:        b.log,
	})
	if err := b.server.Listen(dir, uid, gid); err != nil {
		return fmt.Errorf("listen for the launcher: %w", err)
	}
	return nil
}

// watchCgroup begins what is to be known about the cgroup of pid 1, which is uid
// and gid on the host, before an init such as systemd moves itself to another.
func (b *builder) watchCgroup(pid, uid, gid int) (err error) {
	if b.plan.PrivateCgroup && uid != 0 {
		if err := cgroup.Delegate(pid, uid, gid); err != nil {
			return fmt.Errorf("delegate the cgroup: %w", err)
		}
	}
	if b.metrics, err = cgroup.NewMetrics(b.fence, pid, b.made.Cgroups); err != nil {
		b.log.WithError(err).Warn("there will be no metrics")
	}
	if ooms, err := cgroup.WatchOOM(pid, b.made.Cgroups, b.reportOOM); err != nil {
		b.log.WithError(err).Warn("there will be no OOM events")
	} else {
		// On v1 the end of the cgroup would look like one more event.
		b.closing.add(ended, func() error {
			ooms.Stop()
			return nil
		})
	}
	if b.fence == nil { // which has the limit itself
		if err := cgroup.Limit(b.made.Cgroups); err != nil {
			return err
		}
	}
	return b.limitComponents()
}

// reload is another handle of the container.
func (c *container) reload() (*libcontainer.Container, error) {
	return libcontainer.Load(c.bundle.Path(bundle.StateDir), c.id)
}

// reportOOM tells that the kernel has killed a process for want of memory.
func (c *container) reportOOM() {
	c.events.AddMinor(c.id, &eventstypes.TaskOOM{ContainerID: c.id})
}

// ownFiles gives the command's user the files that are for nobody else.
func (b *builder) ownFiles() error {
	user := b.spec.Process.User
	if s := b.plan.Service; s != nil {
		user = specs.User{UID: s.UID, GID: s.GID}
	}
	uid, gid, err := b.hostUser(user)
	if err != nil {
		return err
	}
	dir, err := b.bundle.OpenRun()
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, f := range b.plan.Files {
		if !f.Private {
			continue
		}
		if err := dir.Chown(f.Path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// runWithConsole starts an init that runs the command as a service: the task's
// streams are the command's, and what the init says goes to a log.
func (b *builder) runWithConsole(ctx context.Context) error {
	console, err := stdio.NewConsoleSocket()
	if err != nil {
		return err
	}
	defer console.Close()
	b.init.proc.ConsoleSocket = console.Theirs
	if err := b.children.Start(ctx, b.lc, b.init.proc); err != nil {
		return err
	}
	master, err := console.Receive()
	if err != nil {
		return err
	}
	initLog, err := stdio.LogConsole(master, b.bundle.Path(bundle.InitLogFile), &stdio.Spotter{Text: []byte(b.plan.RebootMessage), Found: b.life.Rebooting})
	if err != nil {
		return err
	}
	b.console = initLog
	return nil
}

// hostUser is who a user of the container is on the host.
func (c *container) hostUser(user specs.User) (uid, gid int, err error) {
	cfg := c.lc.Config()
	if uid, err = cfg.HostUID(int(user.UID)); err != nil {
		return 0, 0, err
	}
	gid, err = cfg.HostGID(int(user.GID))
	return uid, gid, err
}

// hostRoot is who the container's root is on the host.
func (c *container) hostRoot() (uid, gid int, err error) { return c.hostUser(specs.User{}) }

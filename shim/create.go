package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be applied
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/time/rate"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/config"
	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/oci"

	"containerd-shim-rich/stdio"

	"containerd-shim-rich/child"

	"containerd-shim-rich/logs"

	"containerd-shim-rich/bundle"
)

// Create makes a container whose pid 1 waits for Start.
func (s *service) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if r.Checkpoint != "" {
		return nil, toRPC(fmt.Errorf("restore from checkpoint %s: %w", r.Checkpoint, errdefs.ErrNotImplemented))
	}
	cgroup.AwaitGrace()
	ctx, err := s.reserve(ctx, r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	c, err := s.create(ctx, r)
	if err != nil {
		s.drop(r.ID)
		return nil, toRPC(err)
	}
	s.events.Add(&eventstypes.TaskCreate{
		ContainerID: r.ID,
		Bundle:      r.Bundle,
		Rootfs:      r.Rootfs,
		IO: &eventstypes.TaskIO{
			Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		},
		Pid: uint32(c.init.pid),
	})
	go c.waitInit()
	return &task.CreateTaskResponse{Pid: uint32(c.init.pid)}, nil
}

// undo collects what has to be reverted when a later step fails.
type undo []func() error

func (u *undo) add(f func() error) { *u = append(*u, f) }

// run reverts in reverse order and adds what goes wrong to err.
func (u undo) run(err error) error {
	errs := []error{err}
	for _, f := range slices.Backward(u) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (s *service) create(ctx context.Context, r *task.CreateTaskRequest) (_ *container, err error) {
	var revert undo
	defer func() {
		if err != nil {
			err = revert.run(err)
		}
	}()
	handler, err := parseOptions(r.Options)
	if err != nil {
		return nil, err
	}
	b := bundle.Bundle(r.Bundle)
	c := &container{
		id:       r.ID,
		bundle:   b,
		events:   s.events,
		children: s.children,
		loggers:  s.loggers,
		programs: s.programs,
		execs:    map[string]*process{},
		gone:     make(chan struct{}),
		crashes:  rate.NewLimiter(reportsPerSecond, maxReports),
		log:      logs.Host(log.G(ctx).WithField("container", r.ID)),
	}
	// A Create that was interrupted may have left something.
	if _, err := remains(r.Bundle, s.children); err != nil {
		return nil, fmt.Errorf("clean up the bundle's earlier use: %w", err)
	}
	if err := b.Make(); err != nil {
		return nil, err
	}
	revert.add(func() error { return os.RemoveAll(b.Path()) })

	original, err := oci.Load(r.Bundle)
	if err != nil {
		return nil, fmt.Errorf("load bundle: %w", withClass(err, errdefs.ErrInvalidArgument))
	}
	if err := checkProcess(original.Process); err != nil {
		return nil, err
	}
	if original.Root == nil {
		return nil, fmt.Errorf("root: missing; name the root file system: %w", errdefs.ErrInvalidArgument)
	}
	rootfs := original.Root.Path
	if !filepath.IsAbs(rootfs) {
		// Not left to libcontainer, which takes it from the working
		// directory: the bundle of the first container of a pod.
		rootfs = filepath.Join(r.Bundle, rootfs)
	}
	if err := b.LinkState(handler.root, s.namespace); err != nil {
		return nil, fmt.Errorf("runtime option Root: value %q: %w", handler.root, err)
	}
	c.made = bundle.Made{Rootfs: rootfs, Mounted: len(r.Rootfs) > 0, Logs: logs.Dir(s.namespace, r.ID)}
	if c.made.Mounted {
		c.made.Rootfs = filepath.Join(r.Bundle, bundle.RootfsDir)
	}
	if err := b.Store(bundle.MadeFile, c.made); err != nil {
		return nil, err
	}
	revert.add(func() error { return sweep(b, c.made) })
	if err := givenUp(ctx); err != nil {
		return nil, err // the bundle may be about to be removed
	}
	if err := mountRootfs(r, c.made.Rootfs); err != nil {
		return nil, err
	}
	if err := c.prepare(original, rootfs, r, handler, s.namespace); err != nil {
		return nil, err
	}
	if err := c.addHooks(original, handler); err != nil {
		return nil, err
	}
	revert.add(func() error { return c.fence.Release() })
	if err := c.configure(handler, rootfs); err != nil {
		return nil, err
	}
	revert.add(c.revertContainer)
	err = c.startInit(ctx, r, s.namespace)
	if gone := givenUp(ctx); gone != nil {
		err = errors.Join(gone, err)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.fence.Release(), c.hooks.hold(c.init.pid)); err != nil {
		return nil, err
	}
	c.forget()
	if err := s.put(ctx, r.ID, c); err != nil {
		return nil, err
	}
	return c, nil
}

// forget drops what only Create needs. The largest part is the list of system
// calls of the seccomp profile, which libcontainer has once more.
func (c *container) forget() {
	c.spec = &specs.Spec{Annotations: c.spec.Annotations, Root: c.spec.Root}
	c.init.spec = nil
	c.plan.Process, c.plan.Mounts, c.plan.Destinations, c.plan.Files, c.plan.ReadonlyPaths = nil, nil, nil, nil, nil
	c.plan.MountPoints = nil
	c.hooks.forget()
}

func mountRootfs(r *task.CreateTaskRequest, rootfs string) error {
	if len(r.Rootfs) == 0 {
		return nil
	}
	dir, err := hostfs.Open(r.Bundle)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Mkdir(bundle.RootfsDir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	mounts := make([]mount.Mount, len(r.Rootfs))
	for i, m := range r.Rootfs {
		mounts[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	if err := mount.All(mounts, rootfs); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	return nil
}

// prepare decides about the init and makes on the host what it needs.
func (c *container) prepare(original *specs.Spec, rootfs string, r *task.CreateTaskRequest, handler handlerOptions, namespace string) error {
	host, err := config.Load(config.HostFile)
	if err != nil {
		return err
	}
	annotations := original.Annotations
	if initmode.IsSandbox(annotations) {
		// Its containers will say what is wrong with them, each once. The
		// kubelet makes a sandbox that fails again and again.
		annotations = nil
	}
	c.options, err = config.Resolve(config.Sources{
		Annotations: annotations,
		Container:   initmode.ContainerName(original.Annotations),
		InPod:       initmode.IsCRI(original.Annotations),
		Env:         original.Process.Env,
		Runtime:     handler.rich,
		Host:        host,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	chosen, err := chooseComponents(original, c.options)
	if err != nil {
		return err
	}
	limits, err := child.InheritedLimits()
	if err != nil {
		return err
	}
	hostNetwork, err := sharesNetwork(original)
	if err != nil {
		return err
	}
	root, err := initmode.OpenRootfs(rootfs)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	bin := c.bundle.Path(bundle.BinDir)
	c.plan, err = initmode.New(&initmode.Request{
		Spec:      original,
		Rootfs:    root,
		Options:   c.options,
		MachineID: machineID(namespace, r.ID),
		RunDir:    c.bundle.Path(bundle.RunDir),
		Launcher:  filepath.Join(bin, launcherProgram),
		DumbInit:  filepath.Join(bin, dumbInitProgram),
		Cgroups:   cgroup.Layout(),
		Limits:    limits,

		HostNetwork: hostNetwork,

		Components:    chosen,
		ComponentsDir: c.bundle.Path(componentsDir),
		ContainerID:   r.ID,
		Namespace:     namespace,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	if err := checkLimits(c.plan.Components, original); err != nil {
		return err
	}
	for _, note := range c.plan.Notes {
		c.log.Info(note)
	}
	if len(c.plan.Sysctl) > 0 {
		short, err := dgramQueueShort(original)
		if err != nil {
			return withClass(err, errdefs.ErrInvalidArgument)
		}
		if !short {
			c.plan.Sysctl = nil
		}
	}
	c.spec = oci.Rewrite(original, c.plan)
	c.spec.Root = &specs.Root{Path: rootfs, Readonly: original.Root.Readonly}
	if c.plan.Passive() {
		return nil
	}
	if err := c.exposePrograms(); err != nil {
		return err
	}
	if c.plan.Init == config.InitDumbInit {
		if err := checkProgram(filepath.Join(bin, dumbInitProgram)); err != nil {
			return err
		}
	}
	if err := c.exposeComponents(); err != nil {
		return err
	}
	if err := c.bundle.MakeRun(c.plan.Files); err != nil {
		return fmt.Errorf("write the init's files: %w", err)
	}
	// Stored by configure: libcontainer makes them later.
	if c.made.MountPoints, err = bundle.MissingMountPoints(rootfs, c.plan); err != nil {
		return err
	}
	if c.made.Volumes, err = bundle.MissingInVolumes(c.plan); err != nil {
		return err
	}
	if err := oci.Store(string(c.bundle), c.spec); err != nil {
		return fmt.Errorf("store the rewritten spec: %w", err)
	}
	return nil
}

// exposePrograms makes the programs for the container visible.
func (c *container) exposePrograms() error {
	dir, err := c.bundle.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return c.programs.expose(dir, bundle.BinDir)
}

// configure makes libcontainer's container.
func (c *container) configure(handler handlerOptions, rootfs string) error {
	if handler.systemdCgroup {
		if err := cgroup.CheckSystemd(c.spec); err != nil {
			return err
		}
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       c.id,
		UseSystemdCgroup: cgroup.ThroughSystemd(handler.systemdCgroup, c.spec),
		NoPivotRoot:      handler.noPivotRoot,
		NoNewKeyring:     handler.noNewKeyring,
		Spec:             c.spec,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	cfg.Rootfs = rootfs
	// Hooks are told the bundle by this label, which holds the working
	// directory.
	cfg.Labels = slices.DeleteFunc(cfg.Labels, func(l string) bool { return len(l) > 7 && l[:7] == "bundle=" })
	cfg.Labels = append(cfg.Labels, "bundle="+string(c.bundle))
	if c.spec.Linux != nil {
		c.resources = c.spec.Linux.Resources
	}
	hooks, err := setHooks(cfg, c.spec.Hooks)
	if err != nil {
		return err
	}
	if c.plan.PrivateCgroup {
		if err := c.raiseFence(cfg.Cgroups); err != nil {
			return fmt.Errorf("make the cgroup around the container's: %w", err)
		}
	}
	if c.lc, err = libcontainer.Create(c.bundle.Path(bundle.StateDir), c.id, cfg); err != nil {
		return err
	}
	state, err := c.lc.State()
	if err != nil {
		return errors.Join(err, c.lc.Destroy())
	}
	// From here on there may be mount points and cgroups, and the poststop
	// hooks are due.
	c.poststart = hooks.poststart
	c.made.Cgroups, c.made.Poststop, c.made.State = state.CgroupPaths, hooks.poststop, stateOf(c.id, c.bundle, c.spec)
	if err := c.bundle.Store(bundle.MadeFile, c.made); err != nil {
		return errors.Join(err, c.lc.Destroy())
	}
	return nil
}

// raiseFence makes the fence of a container, and turns cg into the
// configuration of a cgroup one level below.
func (c *container) raiseFence(cg *cgroups.Cgroup) error {
	f, err := cgroup.NewFence(cg)
	if f == nil || err != nil {
		return err
	}
	// Noted first: sweep removes also what an error leaves.
	c.made.Fence = f.Around()
	if err := c.bundle.Store(bundle.MadeFile, c.made); err != nil {
		return err
	}
	c.fence = f
	return f.Raise()
}

// revertContainer ends and removes a container that could not be started.
func (c *container) revertContainer() error {
	var errs []error
	if c.app != nil {
		c.app.close()
	}
	c.components.close()
	c.shares.Close()
	if c.watch != nil {
		c.watch.close()
	}
	c.hooks.release()
	if c.ooms != nil {
		c.ooms.Stop() // on cgroup v1 the end of the cgroup looks like one more event
	}
	if c.init != nil {
		if _, err := c.init.proc.Pid(); err == nil {
			if err := c.killAll(); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
				errs = append(errs, err)
			}
			_, _ = c.children.Wait(c.init.proc) // it may never have existed
			close(c.gone)
		}
		if c.init.io != nil {
			c.init.io.Close()
		}
	}
	if c.console != nil {
		c.console.Close()
	}
	c.pid1.Close()
	c.removing.Lock()
	errs = append(errs, removeContainer(c.lc, c.made.Cgroups, removeWait))
	c.destroyed = true
	c.removing.Unlock()
	if err := runPoststop(c.bundle, &c.made, 0); err != nil {
		c.log.WithError(err).Warn("poststop hooks")
	}
	return errors.Join(errs...)
}

// startInit starts pid 1 up to the point where it waits for Start.
func (c *container) startInit(ctx context.Context, r *task.CreateTaskRequest, namespace string) error {
	proc, err := child.NewProcess(c.spec.Process)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	proc.Init = true
	c.init = &process{
		streams: stdio.Names{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
		spec:    c.spec.Process,
		proc:    proc,
		done:    make(chan struct{}),
	}
	uid, gid, err := c.hostUser(c.spec.Process.User)
	if err != nil {
		return err
	}
	streamUID, streamGID := uid, gid
	if c.plan.Service == nil {
		// libcontainer gives them to pid 1's user itself; a launcher may
		// lack the right to do so for the CMD.
		if streamUID, streamGID, err = c.hostRoot(); err != nil {
			return err
		}
	}
	if err := c.init.open(ctx, stdio.Owner{ID: r.ID, Namespace: namespace, Loggers: c.loggers}, streamUID, streamGID); err != nil {
		return err
	}
	if c.components, err = c.newComponents(uid, gid); err != nil {
		return err
	}
	if c.plan.Halt != 0 || c.components != nil {
		if err := c.ownFiles(); err != nil {
			return fmt.Errorf("give files to the command's user: %w", err)
		}
		if err := c.listen(uid, gid); err != nil {
			return fmt.Errorf("listen for the launcher: %w", err)
		}
	}
	if c.plan.Console {
		err = c.startWithConsole(ctx)
	} else {
		err = c.init.run(ctx, c.children, c.lc)
	}
	if err != nil {
		return err
	}
	pid, err := proc.Pid()
	if err != nil {
		return err
	}
	if c.pid1, err = child.OpenProc(pid); err != nil {
		return err
	}
	c.init.started(pid, tasktypes.Status_CREATED)
	c.starters = newStarters(func() (*libcontainer.Container, error) {
		return libcontainer.Load(c.bundle.Path(bundle.StateDir), c.id)
	})
	if c.plan.PrivateCgroup && uid != 0 {
		if err := cgroup.Delegate(pid, uid, gid); err != nil {
			return fmt.Errorf("delegate the cgroup: %w", err)
		}
	}
	// Read before systemd moves itself to a cgroup of its own.
	if c.metrics, err = cgroup.NewMetrics(c.fence, pid, c.made.Cgroups); err != nil {
		c.log.WithError(err).Warn("there will be no metrics")
	}
	if c.ooms, err = cgroup.WatchOOM(pid, c.made.Cgroups, func() { c.events.AddMinor(c.id, &eventstypes.TaskOOM{ContainerID: c.id}) }); err != nil {
		c.log.WithError(err).Warn("there will be no OOM events")
	}
	if c.fence == nil { // which has the limit itself
		if err := cgroup.Limit(c.made.Cgroups); err != nil {
			return err
		}
	}
	return c.limitComponents()
}

// listen makes the sockets for the launcher and the init, who are uid and gid
// on the host.
func (c *container) listen(uid, gid int) (err error) {
	told := func(string) {}
	if c.plan.Notify {
		if c.watch, err = watchInit(c.bundle.Path(bundle.RunDir), initmode.NotifySocket, uid, gid, c.noteInit); err != nil {
			return err
		}
		told = c.watch.set
	}
	c.app = &app{
		told:       told,
		record:     c.plan.Service,
		onExit:     c.options.OnExit,
		shown:      newLatest(c.noteState),
		wake:       make(chan struct{}, 1),
		stdio:      c.init.io,
		isStop:     c.isStop,
		halt:       c.halt,
		kill:       c.killAll,
		prestart:   c.prestartService,
		begins:     c.hooks.starting,
		crashed:    c.commandCrashed,
		mismatched: c.programs.mismatched,
		log:        c.log,
		components: c.components,
	}
	return c.app.listen(c.bundle.Path(bundle.RunDir), uid, gid)
}

// ownFiles gives the CMD's user the files that are for nobody else.
func (c *container) ownFiles() error {
	user := c.spec.Process.User
	if s := c.plan.Service; s != nil {
		user = specs.User{UID: s.UID, GID: s.GID}
	}
	uid, gid, err := c.hostUser(user)
	if err != nil {
		return err
	}
	dir, err := c.bundle.OpenRun()
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, f := range c.plan.Files {
		if !f.Private {
			continue
		}
		if err := dir.Chown(f.Path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// startWithConsole starts an init that runs the CMD as a service: the task's
// streams are the CMD's, and what the init says goes to a log.
func (c *container) startWithConsole(ctx context.Context) error {
	console, err := stdio.NewConsoleSocket()
	if err != nil {
		return err
	}
	defer console.Close()
	c.init.proc.ConsoleSocket = console.Theirs
	if err := c.children.Start(ctx, c.lc, c.init.proc); err != nil {
		return err
	}
	master, err := console.Receive()
	if err != nil {
		return err
	}
	initLog, err := stdio.LogConsole(master, c.bundle.Path(bundle.InitLogFile), &stdio.Spotter{Text: []byte(c.plan.RebootMessage), Found: c.app.rebooting})
	if err != nil {
		return err
	}
	c.console = initLog
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

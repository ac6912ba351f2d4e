package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/oci"
)

// Create makes a container whose pid 1 waits for Start.
func (s *service) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if r.Checkpoint != "" {
		return nil, toRPC(fmt.Errorf("restore from checkpoint %s: %w", r.Checkpoint, errdefs.ErrNotImplemented))
	}
	if err := s.reserve(r.ID); err != nil {
		return nil, toRPC(err)
	}
	c, err := s.create(ctx, r)
	if err != nil {
		s.drop(r.ID)
		return nil, toRPC(err)
	}
	s.put(r.ID, c)
	s.events.add(&eventstypes.TaskCreate{
		ContainerID: r.ID,
		Bundle:      r.Bundle,
		Rootfs:      r.Rootfs,
		IO: &eventstypes.TaskIO{
			Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		},
		Pid: uint32(c.init.pid),
	})
	go c.watchOOM()
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
	b := bundle(r.Bundle)
	c := &container{
		id:     r.ID,
		bundle: b,
		events: s.events,
		execs:  map[string]*process{},
		gone:   make(chan struct{}),
		log:    log.G(ctx).WithField("container", r.ID),
	}
	// A Create that was interrupted may have left something.
	if _, err := remains(r.Bundle); err != nil {
		return nil, fmt.Errorf("clean up the bundle's earlier use: %w", err)
	}
	if err := os.Mkdir(b.path(), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	revert.add(func() error { return os.RemoveAll(b.path()) })

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
	c.made = made{Root: libcontainerRoot(b, handler.root, s.namespace), Rootfs: rootfs, Mounted: len(r.Rootfs) > 0}
	if c.made.Mounted {
		c.made.Rootfs = filepath.Join(r.Bundle, "rootfs")
	}
	if err := b.store(madeFile, c.made); err != nil {
		return nil, err
	}
	revert.add(func() error { return b.sweep(c.made) })
	if err := mountRootfs(r, c.made.Rootfs); err != nil {
		return nil, err
	}
	if err := c.prepare(original, rootfs, r, handler, s.namespace); err != nil {
		return nil, err
	}
	revert.add(func() error { return c.fence.release() })
	if err := c.configure(handler, rootfs); err != nil {
		return nil, err
	}
	revert.add(c.revertContainer)
	if err := c.startInit(ctx, r, s.namespace); err != nil {
		return nil, err
	}
	return c, c.fence.release()
}

func mountRootfs(r *task.CreateTaskRequest, rootfs string) error {
	if len(r.Rootfs) == 0 {
		return nil
	}
	if err := os.Mkdir(rootfs, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
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
	c.options, err = config.Resolve(config.Sources{
		Annotations: original.Annotations,
		Container:   initmode.ContainerName(original.Annotations),
		Env:         original.Process.Env,
		Runtime:     handler.rich,
		Host:        host,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	limits, err := inheritedLimits()
	if err != nil {
		return err
	}
	root, err := initmode.OpenRootfs(rootfs)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	bin := c.bundle.path(binDir)
	c.plan, err = initmode.New(&initmode.Request{
		Spec:      original,
		Rootfs:    root,
		Options:   c.options,
		MachineID: machineID(namespace, r.ID),
		RunDir:    c.bundle.path(runDir),
		Launcher:  filepath.Join(bin, launcherProgram),
		DumbInit:  filepath.Join(bin, dumbInitProgram),
		Cgroups:   cgroupLayout(),
		Limits:    limits,
	})
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	c.spec = oci.Rewrite(original, c.plan)
	c.spec.Root = &specs.Root{Path: rootfs, Readonly: original.Root.Readonly}
	if c.plan.Passive() {
		return nil
	}
	if err := exposePrograms(bin); err != nil {
		return err
	}
	if c.plan.Init == config.InitDumbInit {
		if err := checkProgram(filepath.Join(bin, dumbInitProgram)); err != nil {
			return err
		}
	}
	if err := c.bundle.writeFiles(c.plan.Files); err != nil {
		return fmt.Errorf("write the init's files: %w", err)
	}
	if c.made.MountPoints, err = missing(rootfs, c.plan); err != nil {
		return err
	}
	if err := c.bundle.store(madeFile, c.made); err != nil {
		return err
	}
	if err := oci.Store(string(c.bundle), c.spec); err != nil {
		return fmt.Errorf("store the rewritten spec: %w", err)
	}
	return nil
}

func cgroupLayout() initmode.CgroupLayout {
	switch {
	case cgroups.IsCgroup2UnifiedMode():
		return initmode.CgroupUnified
	case cgroups.IsCgroup2HybridMode():
		return initmode.CgroupHybrid
	}
	return initmode.CgroupLegacy
}

// checkCgroupsPath rejects a path of the other driver's form. libcontainer
// would make a cgroup of that odd name, or say what it expects but not why.
func checkCgroupsPath(linux *specs.Linux, systemd bool) error {
	if linux == nil || linux.CgroupsPath == "" {
		return nil
	}
	at := linux.CgroupsPath
	forSystemd := strings.Count(at, ":") == 2 && !strings.Contains(at, "/")
	switch {
	case forSystemd && !systemd:
		return fmt.Errorf("linux.cgroupsPath: value %q has systemd's form (slice:prefix:name), but the handler's runtime option SystemdCgroup is not set; "+
			"set it, or make the engine use the cgroupfs driver: %w", at, errdefs.ErrInvalidArgument)
	case !forSystemd && systemd:
		return fmt.Errorf("linux.cgroupsPath: value %q is a path, but the handler's runtime option SystemdCgroup asks for systemd's form (slice:prefix:name); "+
			"unset it, or make the engine use the systemd driver: %w", at, errdefs.ErrInvalidArgument)
	}
	return nil
}

// configure makes libcontainer's container.
func (c *container) configure(handler handlerOptions, rootfs string) error {
	if err := checkCgroupsPath(c.spec.Linux, handler.systemdCgroup); err != nil {
		return err
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       c.id,
		UseSystemdCgroup: handler.systemdCgroup,
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
	if c.plan.PrivateCgroup && cgroups.IsCgroup2UnifiedMode() {
		if c.fence, err = newFence(cfg.Cgroups); err != nil {
			return err
		}
		c.made.Fence = c.fence.config
		if err := c.bundle.store(madeFile, c.made); err != nil {
			return err
		}
		if err := c.fence.raise(); err != nil {
			return err
		}
	}
	c.lc, err = libcontainer.Create(c.made.Root, c.id, cfg)
	return err
}

// revertContainer ends and removes a container that could not be started.
func (c *container) revertContainer() error {
	var errs []error
	if c.app != nil {
		c.app.close()
	}
	if c.init != nil {
		if _, err := c.init.proc.Pid(); err == nil {
			if err := c.lc.Signal(unix.SIGKILL); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
				errs = append(errs, err)
			}
			_, _ = c.init.proc.Wait() // it may never have existed
		}
		if c.init.io != nil {
			c.init.io.close()
		}
	}
	if c.console != nil {
		c.console.Close()
	}
	return errors.Join(append(errs, c.lc.Destroy())...)
}

// startInit starts pid 1 up to the point where it waits for Start.
func (c *container) startInit(ctx context.Context, r *task.CreateTaskRequest, namespace string) error {
	proc, err := newLibcontainerProcess(c.spec.Process)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	proc.Init = true
	c.init = &process{
		streams: streams{r.Stdin, r.Stdout, r.Stderr, r.Terminal},
		spec:    c.spec.Process,
		proc:    proc,
		done:    make(chan struct{}),
	}
	uid, gid, err := c.hostRoot()
	if err != nil {
		return err
	}
	if err := c.init.open(ctx, loggerInfo{r.ID, namespace}, uid, gid); err != nil {
		return err
	}
	if c.plan.Service == nil {
		err = c.init.run(c.lc)
	} else {
		err = c.startService(uid, gid)
	}
	if err != nil {
		return err
	}
	pid, err := proc.Pid()
	if err != nil {
		return err
	}
	c.init.started(pid, tasktypes.Status_CREATED)
	// Read before systemd moves itself to a cgroup of its own.
	if c.metrics, err = c.newMetrics(pid); err != nil {
		c.log.WithError(err).Warn("there will be no metrics")
	}
	return c.memoryCgroup()
}

// startService starts an init that runs the CMD as a service: the task's
// streams are the CMD's, and what the init says goes to a log.
func (c *container) startService(uid, gid int) error {
	c.app = &app{
		record: *c.plan.Service,
		stdio:  c.init.io,
		isStop: c.isStop,
		halt:   c.halt,
		kill:   func() error { return c.lc.Signal(unix.SIGKILL) },
		log:    c.log,
	}
	if err := c.app.listen(c.bundle.path(runDir), uid, gid); err != nil {
		return fmt.Errorf("listen for the launcher: %w", err)
	}
	if !c.plan.Console {
		return c.lc.Start(c.init.proc)
	}
	console, err := newConsoleSocket()
	if err != nil {
		return err
	}
	defer console.close()
	c.init.proc.ConsoleSocket = console.theirs
	if err := c.lc.Start(c.init.proc); err != nil {
		return err
	}
	master, err := console.receive()
	if err != nil {
		return err
	}
	initLog, err := logConsole(master, c.bundle.path(initLogFile), &spotter{text: []byte(c.plan.RebootMessage), found: c.app.rebooting})
	if err != nil {
		return err
	}
	c.console = initLog
	return nil
}

// hostRoot is who the container's root is on the host.
func (c *container) hostRoot() (uid, gid int, err error) {
	cfg := c.lc.Config()
	if uid, err = cfg.HostRootUID(); err != nil {
		return 0, 0, err
	}
	gid, err = cfg.HostRootGID()
	return uid, gid, err
}

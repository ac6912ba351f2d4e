package shim

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be applied
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/config"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
	"containerd-shim-rich/oci"
)

// prepare decides about the init and makes on the host what it needs.
func (b *builder) prepare(context.Context) (err error) {
	if b.options, err = b.resolve(); err != nil {
		return err
	}
	if b.plan, err = b.decide(); err != nil {
		return err
	}
	b.adopt(b.plan)
	b.spec = oci.Rewrite(b.original, b.plan)
	b.spec.Root = &specs.Root{Path: b.rootfs, Readonly: b.original.Root.Readonly}
	if b.shape == initmode.Untouched {
		return nil
	}
	if err := b.expose(); err != nil {
		return err
	}
	if err := b.bundle.MakeRun(b.plan.Files); err != nil {
		return fmt.Errorf("write the init's files: %w", err)
	}
	// Stored by configure: libcontainer makes them later.
	if b.made.MountPoints, err = bundle.MissingMountPoints(b.rootfs, b.plan); err != nil {
		return err
	}
	if b.made.Volumes, err = bundle.MissingInVolumes(b.plan); err != nil {
		return err
	}
	if err := oci.Store(string(b.bundle), b.spec); err != nil {
		return fmt.Errorf("store the rewritten spec: %w", err)
	}
	return nil
}

// resolve finds the options, from where they may come.
func (b *builder) resolve() (config.Options, error) {
	host, err := config.Load(config.HostFile)
	if err != nil {
		return config.Options{}, err
	}
	annotations := b.original.Annotations
	if initmode.IsSandbox(annotations) {
		// Its containers will say what is wrong with them, each once. The
		// kubelet makes a sandbox that fails again and again.
		annotations = nil
	}
	options, err := config.Resolve(config.Sources{
		Annotations: annotations,
		Container:   initmode.ContainerName(b.original.Annotations),
		InPod:       initmode.IsCRI(b.original.Annotations),
		Env:         b.original.Process.Env,
		Runtime:     b.handler.rich,
		Host:        host,
	})
	if err != nil {
		return options, withClass(err, errdefs.ErrInvalidArgument)
	}
	return options, nil
}

// decide plans what becomes of the container.
func (b *builder) decide() (*initmode.Plan, error) {
	chosen, err := chooseComponents(b.original, b.options)
	if err != nil {
		return nil, err
	}
	limits, err := child.InheritedLimits()
	if err != nil {
		return nil, err
	}
	hostNetwork, err := sharesNetwork(b.original)
	if err != nil {
		return nil, err
	}
	root, err := initmode.OpenRootfs(b.rootfs)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	bin := b.bundle.Path(bundle.BinDir)
	plan, err := initmode.New(&initmode.Request{
		Spec:      b.original,
		Rootfs:    root,
		Options:   b.options,
		MachineID: machineID(b.namespace, b.id),
		RunDir:    b.bundle.Path(bundle.RunDir),
		Launcher:  filepath.Join(bin, launcherProgram),
		DumbInit:  filepath.Join(bin, dumbInitProgram),
		Cgroups:   cgroup.Layout(),
		Limits:    limits,

		HostNetwork: hostNetwork,

		Components:    chosen,
		ComponentsDir: b.bundle.Path(componentsDir),
		ContainerID:   b.id,
		Namespace:     b.namespace,
	})
	if err != nil {
		return nil, withClass(err, errdefs.ErrInvalidArgument)
	}
	if err := checkLimits(plan.Components, b.original); err != nil {
		return nil, err
	}
	for _, note := range plan.Notes {
		b.log.Info(note)
	}
	return plan, b.fitSysctl(plan)
}

// fitSysctl drops the sysctls of a plan whose network namespace has more already.
func (b *builder) fitSysctl(plan *initmode.Plan) error {
	if len(plan.Sysctl) == 0 {
		return nil
	}
	short, err := dgramQueueShort(b.original)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	if !short {
		plan.Sysctl = nil
	}
	return nil
}

// expose makes visible in the bundle what the container gets from the host: the
// programs and the directories of the components.
func (b *builder) expose() error {
	dir, err := b.bundle.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := b.service.programs.expose(dir, bundle.BinDir); err != nil {
		return err
	}
	if b.plan.Init == config.InitDumbInit {
		if err := checkProgram(b.bundle.Path(bundle.BinDir, dumbInitProgram)); err != nil {
			return err
		}
	}
	return b.exposeComponents(dir)
}

// adopt keeps of a plan what the container needs for its life.
func (b *builder) adopt(plan *initmode.Plan) {
	annotations := b.original.Annotations
	b.shape, b.mode, b.halt, b.haltTimeout = plan.Shape, plan.Init, plan.Halt, b.options.HaltTimeout
	b.life = life.New(life.Setup{
		Shape:    plan.Shape,
		OnExit:   b.options.OnExit,
		Halt:     plan.Halt,
		AnyStops: initmode.IsInPod(annotations),
		Stops: []syscall.Signal{
			unix.SIGTERM,
			syscall.Signal(b.options.StopSignal),
			syscall.Signal(initmode.ImageStopSignal(annotations)),
		},
	})
}

// addHooks takes the hooks from the options, the bundle and the host.
func (b *builder) addHooks(context.Context) (err error) {
	of := hooks.Owner{
		ID: b.id, Bundle: b.bundle, Children: b.children, Log: b.log, Spec: b.original,
		Handler: hooks.Handler{
			SystemdCgroup: cgroup.ThroughSystemd(b.handler.systemdCgroup, b.original),
			NoPivotRoot:   b.handler.noPivotRoot, NoNewKeyring: b.handler.noNewKeyring,
		},
	}
	if initmode.IsSandbox(b.original.Annotations) {
		b.hooks = hooks.None(of) // the pause container of a pod has the pod's annotations
		return nil
	}
	if b.spec.Hooks, err = hooks.OCI(b.original, b.options.HostHooks, b.options.HookTimeout); err != nil {
		return withClass(err, errdefs.ErrFailedPrecondition)
	}
	of.HostPoststop = len(b.spec.Hooks.Poststop) > 0
	if b.hooks, err = hooks.New(of, b.options); err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	return nil
}

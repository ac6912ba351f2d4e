package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	eventstypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be applied
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/config"
	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/logs"
	"containerd-shim-rich/oci"
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
	if c.shape.HasInit() {
		go c.haltWhenAsked()
	}
	go c.waitInit()
	return &task.CreateTaskResponse{Pid: uint32(c.init.pid)}, nil
}

// builder is a Create on its way. It ends with it, and with it all that only
// Create needs; the largest part is the list of system calls of the seccomp
// profile, which libcontainer has once more. So what is called later, by the
// container that it makes, is a function of that.
type builder struct {
	*container
	service  *service
	request  *task.CreateTaskRequest
	handler  handlerOptions
	original *specs.Spec // as the bundle's maker wrote it
	spec     *specs.Spec // as it is rewritten
	options  config.Options
	plan     *initmode.Plan
}

func (s *service) create(ctx context.Context, r *task.CreateTaskRequest) (_ *container, err error) {
	b := &builder{service: s, request: r, container: newContainer(ctx, s, r)}
	defer func() {
		if err != nil {
			err = b.closing.undo(err)
		}
	}()
	for _, step := range []func(context.Context) error{
		b.takeBundle,
		b.load,
		b.mountRootfs,
		b.prepare,
		b.addHooks,
		b.configure,
		b.startInit,
		b.finish,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.put(ctx, r.ID, b.container); err != nil {
		return nil, err
	}
	b.closing.keep()
	return b.container, nil
}

// takeBundle makes the bundle ours.
func (b *builder) takeBundle(context.Context) (err error) {
	if b.handler, err = parseOptions(b.request.Options); err != nil {
		return err
	}
	// A Create that was interrupted may have left something.
	if _, err := remains(b.request.Bundle, b.children); err != nil {
		return fmt.Errorf("clean up the bundle's earlier use: %w", err)
	}
	if err := b.bundle.Make(); err != nil {
		return err
	}
	b.closing.add(removed, b.removeFiles)
	return nil
}

// load reads the bundle, and notes what will be made outside of it.
func (b *builder) load(ctx context.Context) (err error) {
	path := b.request.Bundle
	if b.original, err = oci.Load(path); err != nil {
		return fmt.Errorf("load bundle: %w", withClass(err, errdefs.ErrInvalidArgument))
	}
	if err := checkProcess(b.original.Process); err != nil {
		return err
	}
	if b.original.Root == nil {
		return fmt.Errorf("root: missing; name the root file system: %w", errdefs.ErrInvalidArgument)
	}
	b.rootfs = b.original.Root.Path
	if !filepath.IsAbs(b.rootfs) {
		// Not left to libcontainer, which takes it from the working
		// directory: the bundle of the first container of a pod.
		b.rootfs = filepath.Join(path, b.rootfs)
	}
	if err := b.bundle.LinkState(b.handler.root, b.namespace); err != nil {
		return fmt.Errorf("runtime option Root: value %q: %w", b.handler.root, err)
	}
	b.made = bundle.Made{Rootfs: b.rootfs, Mounted: len(b.request.Rootfs) > 0, Logs: logs.Dir(b.namespace, b.id)}
	if b.made.Mounted {
		b.made.Rootfs = filepath.Join(path, bundle.RootfsDir)
	}
	if err := b.bundle.Store(bundle.MadeFile, b.made); err != nil {
		return err
	}
	b.closing.add(removed, b.sweep)
	return givenUp(ctx) // the bundle may be about to be removed
}

// finish lets go of what only Create holds.
func (b *builder) finish(context.Context) error {
	if err := errors.Join(b.closing.run(created), b.hooks.Hold(b.init.pid)); err != nil {
		return err
	}
	b.init.spec = nil
	b.hooks.Forget()
	return nil
}

// mountRootfs mounts the root file system if the engine leaves that to its runtime.
func (b *builder) mountRootfs(context.Context) error {
	r := b.request
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
	if err := mount.All(mounts, b.made.Rootfs); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	return nil
}

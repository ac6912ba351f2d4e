package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/integration/containerdtest"
)

// Peers.
const (
	withRunc = "stock shim, runc"
	withCrun = "stock shim, crun"
	nspawn   = "systemd-nspawn"
	podman   = "podman"
	nobody   = "none"
	minimal  = "minimal program"
	// inCgroups is one that moves to the container's cgroups.
	inCgroups = "minimal program, with cgroups"
)

// runtime is what containerd starts containers with.
type runtime struct {
	name    string
	runtime string
	options any
	init    string // our option of that name
}

// stock is containerd's own shim with runc. That keeps its state where
// containerd does, as it would on a host (/run).
func (b *bench) stock() runtime {
	return runtime{name: withRunc, runtime: "io.containerd.runc.v2", options: &options.Options{Root: b.runcRoot()}}
}

func (b *bench) runcRoot() string { return filepath.Join(b.Dir, "state", "runc") }

// crun is the same with crun.
func (b *bench) crun() runtime {
	return runtime{name: withCrun, runtime: "io.containerd.runc.v2", options: &options.Options{BinaryName: b.crunProgram(), Root: b.runcRoot()}}
}

func (b *bench) crunProgram() string { return filepath.Join(b.build, "bench/crun/usr/bin/crun") }

// ours is this shim with an init.
func ours(init string) runtime {
	return runtime{name: "ours, " + init, runtime: "io.containerd.rich.v2", init: init}
}

// container makes a container, and no task.
func (b *bench) container(image string, with runtime, args []string, more ...oci.SpecOpts) (containerd.Container, error) {
	from, err := b.image(image)
	if err != nil {
		return nil, err
	}
	id := b.newID()
	spec := []oci.SpecOpts{
		oci.WithDefaultSpec(), oci.WithDefaultUnixDevices, oci.WithImageConfig(from),
		oci.WithProcessArgs(args...), oci.WithCgroup(b.Cgroup() + "/" + id),
	}
	if with.init != "" {
		spec = append(spec, oci.WithAnnotations(map[string]string{"rich.containerd.io/init": with.init}))
	}
	return b.Client.NewContainer(b.context(), id,
		containerd.WithImage(from), containerd.WithNewSnapshot(id, from),
		containerd.WithRuntime(with.runtime, with.options),
		containerd.WithNewSpec(append(spec, more...)...))
}

// hybrid is where cgroup2 is mounted beside version 1, if it has controllers:
// crun refuses to run on such a host.
func hybrid() (string, error) {
	mounts, err := containerdtest.Mounts()
	for _, m := range mounts {
		if m.Type != "cgroup2" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Point, "cgroup.controllers"))
		if err != nil {
			return "", err
		}
		if m.Point != "/sys/fs/cgroup" && len(strings.TrimSpace(string(text))) > 0 {
			return m.Point, nil
		}
	}
	return "", err
}

// withPod puts a container into a pod, whose containers share a shim.
func withPod(pod string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": pod})
}

func (b *bench) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.context(), limit)
}

// ended waits for the end of a process, which has to have the status.
func ended(exit <-chan containerd.ExitStatus, want ...uint32) error {
	status := <-exit
	code, _, err := status.Result()
	if err != nil {
		return err
	}
	for _, w := range want {
		if code == w {
			return nil
		}
	}
	return fmt.Errorf("exit status %d, want one of %v", code, want)
}

// running is a task that has been started.
type running struct {
	containerd.Task
	container containerd.Container
	exit      <-chan containerd.ExitStatus
	execs     int
}

// start creates and starts the task of a container.
func (b *bench) start(ctx context.Context, c containerd.Container, io cio.Creator) (*running, error) {
	task, err := c.NewTask(ctx, io)
	if err != nil {
		return nil, err
	}
	r := &running{Task: task, container: c}
	if r.exit, err = task.Wait(b.context()); err != nil {
		return nil, err
	}
	return r, task.Start(ctx)
}

// launch makes a container, and its task goes on until it is removed.
func (b *bench) launch(image string, with runtime, args []string, more ...oci.SpecOpts) (*running, error) {
	c, err := b.container(image, with, args, more...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := b.within()
	defer cancel()
	return b.start(ctx, c, cio.NullIO)
}

// place is a runtime with the containerd that it is measured on.
type place struct {
	*bench
	runtime
}

// removeTask ends a task and removes its container.
func (b *bench) removeTask(r *running) error {
	ctx, cancel := b.within()
	defer cancel()
	_ = r.Kill(ctx, syscall.SIGKILL) // it may have ended
	<-r.exit
	_, err := r.Delete(ctx)
	return errors.Join(err, r.container.Delete(ctx, containerd.WithSnapshotCleanup))
}

// execTrue runs /bin/true beside the task, and returns how long it took.
func (b *bench) execTrue(r *running) (time.Duration, error) {
	r.execs++
	return b.execAs(r, fmt.Sprintf("exec-%d", r.execs))
}

func (b *bench) execAs(r *running, id string) (time.Duration, error) {
	ctx, cancel := b.within()
	defer cancel()
	begin := time.Now()
	exec, err := r.Exec(ctx, id, &specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}}, cio.NullIO)
	if err != nil {
		return 0, err
	}
	exit, err := exec.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := exec.Start(ctx); err != nil {
		return 0, err
	}
	if err := ended(exit, 0); err != nil {
		return 0, err
	}
	_, err = exec.Delete(ctx)
	return time.Since(begin), err
}

// streams are the streams of a task; nil is no stdin.
func (b *bench) streams(stdin io.Reader, stdout io.Writer) cio.Creator {
	return cio.NewCreator(cio.WithStreams(stdin, stdout, io.Discard), cio.WithFIFODir(filepath.Join(b.Dir, "state", "fifo")))
}

// shim finds the process of the shim that served a container first.
func (b *bench) shim(first string) (int, error) {
	all, err := containerdtest.Processes(b.Dir)
	for _, p := range all {
		if strings.Contains(p.Text+" ", "-id "+first+" ") && strings.Contains(p.Text, "containerd-shim-") {
			return p.Pid, nil
		}
	}
	return 0, errors.Join(err, fmt.Errorf("no shim of %s", first))
}

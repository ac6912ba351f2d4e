package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// The unit that systemd runs for the peers: what this shim gives to systemd,
// with the command in place of the launcher.
const (
	peerTarget  = "[Unit]\nWants=default.target bench.service\nAllowIsolate=yes\n"
	peerService = `[Unit]
DefaultDependencies=no
Wants=basic.target
After=basic.target
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes

[Service]
ExecStart=/bin/sh -c 'exec >/bench/out; ` + bootScript + `'
KillMode=mixed
`
)

// mountImage mounts a writable copy of an image.
func (b *bench) mountImage(name, key string) (string, error) {
	image, err := b.image(name)
	if err != nil {
		return "", err
	}
	layers, err := image.RootFS(b.context())
	if err != nil {
		return "", err
	}
	mounts, err := b.Client.SnapshotService("").Prepare(b.context(), key, identity.ChainID(layers).String(),
		snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)}))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.Dir, "mnt-"+key)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", err
	}
	return dir, mount.All(mounts, dir)
}

// unmountImage undoes mountImage.
func (b *bench) unmountImage(dir, key string) error {
	return errors.Join(mount.UnmountRecursive(dir, 0), os.Remove(dir), b.Client.SnapshotService("").Remove(b.context(), key))
}

// bootPeer boots a copy of the image as a peer does, and returns the times of
// boot and stop in ms. start starts the peer, which sees the folder shared as
// /bench, and returns how to stop it; stop waits for its end.
func (b *bench) bootPeer(start func(root, shared, key string) (stop func() error, _ error)) (_ []float64, err error) {
	key := b.newID()
	root, err := b.mountImage(bootImage, key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.unmountImage(root, key)) }()
	units := filepath.Join(root, "etc/systemd/system")
	for name, text := range map[string]string{"bench.target": peerTarget, "bench.service": peerService} {
		if err := os.WriteFile(filepath.Join(units, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	shared := filepath.Join(b.Dir, key)
	if err := os.Mkdir(shared, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(shared)
	out := filepath.Join(shared, "out")
	if err := unix.Mkfifo(out, 0o600); err != nil {
		return nil, err
	}
	fifo, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer fifo.Close()
	lines := listen(fifo)

	begin := time.Now()
	stop, err := start(root, shared, key)
	if err != nil {
		return nil, err
	}
	boot, err := time.Duration(0), lines.await("ready")
	if err == nil {
		boot = time.Since(begin)
		err = lines.await("booted")
	}
	begin = time.Now()
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	return []float64{milliseconds(boot), milliseconds(time.Since(begin))}, nil
}

// nspawnPeer is systemd-nspawn.
type nspawnPeer struct {
	b *bench
	// joins are the files by which it gets into a cgroup of the run, where it
	// makes its own.
	joins []string
}

func (n *nspawnPeer) prepare() error {
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		return err
	}
	for _, point := range points {
		dir := filepath.Join(point, n.b.Cgroup(), "nspawn")
		if strings.Contains(point, "cpuset") {
			continue // a new cpuset has no CPU
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		n.joins = append(n.joins, filepath.Join(dir, "cgroup.procs"))
	}
	return nil
}

func (n *nspawnPeer) measure() ([]float64, error) {
	return n.b.bootPeer(func(root, shared, key string) (func() error, error) {
		// The shell is what it costs to be in a cgroup of the run from the
		// start: about 1 ms.
		cmd := exec.Command("/bin/sh", append([]string{
			"-c",
			`root=$1 shared=$2 key=$3; shift 3; for f; do echo $$ >"$f"; done; exec systemd-nspawn --quiet --register=no --keep-unit ` +
				`--console=pipe --machine="$key" --bind="$shared:/bench" --directory="$root" --boot -- --unit=bench.target`,
			"sh", root, shared, key,
		}, n.joins...)...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		// On TERM it asks systemd to halt (systemd-nspawn(1), --kill-signal).
		return func() error {
			late := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
			defer late.Stop()
			err := cmd.Process.Signal(syscall.SIGTERM)
			if err := errors.Join(err, cmd.Wait()); err != nil {
				return fmt.Errorf("%w\n%s", err, said.Bytes()[max(0, said.Len()-2000):])
			}
			return nil
		}, nil
	})
}

// podmanPeer is podman with conmon and runc.
type podmanPeer struct {
	b    *bench
	conf string
}

// prepare configures podman so that everything of it is in the run's folder.
func (p *podmanPeer) prepare() error {
	dir := filepath.Join(p.b.Dir, "podman")
	p.conf = filepath.Join(dir, "containers.conf")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	// The limits are those of podman, unless it may not raise its own.
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	return os.WriteFile(p.conf, fmt.Appendf(nil, `[containers]
cgroups = "no-conmon"
default_ulimits = ["nofile=1024:%d", "nproc=1024:1024"]
log_driver = "none"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
static_dir = %q
tmp_dir = %q
volume_path = %q
[engine.runtimes]
runc = [%q]
`, files.Max, dir+"/static", dir+"/tmp", dir+"/volumes", filepath.Join(p.b.build, "suites/programs/runc")), 0o600)
}

func (p *podmanPeer) run(args ...string) error {
	dir := filepath.Join(p.b.Dir, "podman")
	cmd := exec.Command("podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run"}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("podman %s: %w\n%s", args[0], err, out)
	}
	return nil
}

func (p *podmanPeer) measure() ([]float64, error) {
	return p.b.bootPeer(func(root, shared, key string) (func() error, error) {
		err := p.run("run", "--detach", "--name", key, "--systemd=always", "--cgroup-parent", p.b.Cgroup()+"/podman",
			"--volume", shared+":/bench", "--rootfs", root, "/lib/systemd/systemd", "--unit=bench.target")
		if err != nil {
			return nil, err
		}
		return func() error {
			if err := p.run("stop", "--time=60", key); err != nil {
				return err
			}
			return p.run("rm", "--force", key)
		}, nil
	})
}

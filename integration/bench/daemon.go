package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

const (
	namespace    = "bench"
	cgroupParent = "/rich-bench"
	// limit bounds a single wait, so that a hanging peer ends the run.
	limit = 2 * time.Minute
)

// config keeps everything of containerd in DIR.
const config = `version = 4
root = "DIR/root"
state = "DIR/state"
temp = "DIR/tmp"
imports = []
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.monitor.container.v1.restart", "io.containerd.internal.v1.restart"]
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "DIR/image-verifier"
[plugins."io.containerd.server.v1.grpc"]
  address = "DIR/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "DIR/containerd.sock.ttrpc"
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "DIR/s"
`

// daemon is a containerd of the bench's own.
type daemon struct {
	dir     string
	client  *containerd.Client
	command *exec.Cmd
	images  map[string]containerd.Image
	once    sync.Once
}

// startDaemon starts a containerd. It does not see the mount hidden, if there
// is one.
func startDaemon(build, hidden string) (_ *daemon, err error) {
	d := &daemon{images: map[string]containerd.Image{}}
	if d.dir, err = os.MkdirTemp("", "rich-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove())
		}
	}()
	for _, sub := range []string{"tmp", "state"} {
		if err := os.Mkdir(filepath.Join(d.dir, sub), 0o711); err != nil {
			return nil, err
		}
	}
	// As /run is, where all of this lies on a host.
	if err := unix.Mount("tmpfs", filepath.Join(d.dir, "state"), "tmpfs", 0, "mode=0711"); err != nil {
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	file := filepath.Join(d.dir, "config.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "DIR", d.dir)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "containerd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{filepath.Join(build, "tools/containerd"), "--config", file}
	if hidden != "" {
		args = append([]string{"unshare", "--mount", "sh", "-ec", `umount "$0"; exec "$@"`, hidden}, args...)
	}
	d.command = exec.Command(args[0], args[1:]...)
	d.command.Stdout, d.command.Stderr = log, log
	d.command.Env = append(os.Environ(), "TMPDIR="+filepath.Join(d.dir, "tmp"),
		"PATH="+filepath.Join(build, "bin")+":"+filepath.Join(build, "suites/programs")+":"+os.Getenv("PATH"))
	d.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.command.Start(); err != nil {
		d.command = nil
		return nil, err
	}
	return d, poll(func() error {
		if d.client == nil {
			if d.client, err = containerd.New(filepath.Join(d.dir, "containerd.sock"), containerd.WithTimeout(time.Second)); err != nil {
				return fmt.Errorf("%w\n%s", err, d.logTail())
			}
		}
		ctx, cancel := context.WithTimeout(d.context(), time.Second)
		defer cancel()
		_, err := d.client.Version(ctx)
		return err
	})
}

func (d *daemon) context() context.Context {
	return namespaces.WithNamespace(context.Background(), namespace)
}

// cgroup is the parent of the cgroups of all containers of this run.
func (d *daemon) cgroup() string { return cgroupParent + "/" + filepath.Base(d.dir) }

func (d *daemon) logTail() string {
	text, err := os.ReadFile(filepath.Join(d.dir, "containerd.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// image returns an image of the build folder, unpacked at its first use.
func (b *bench) image(name string) (containerd.Image, error) {
	if image, ok := b.images[name]; ok {
		return image, nil
	}
	file, err := os.Open(filepath.Join(b.build, "images", name+".tar"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := b.client.Import(b.context(), file); err != nil {
		return nil, err
	}
	image, err := b.client.GetImage(b.context(), "localhost/"+name+":latest")
	if err != nil {
		return nil, err
	}
	b.images[name] = image
	return image, image.Unpack(b.context(), "")
}

// remove ends everything that the run has started, and removes it.
func (d *daemon) remove() (err error) {
	d.once.Do(func() {
		if d.client != nil {
			d.client.Close()
		}
		if d.command != nil {
			_ = d.command.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = d.command.Wait()
		}
		err = errors.Join(d.killProcesses(), d.unmount(), d.removeCgroups())
		if err == nil {
			// Again, if the last who wrote into it has just been killed.
			err = poll(func() error { return os.RemoveAll(d.dir) })
		}
	})
	return err
}

// processes are those of the run: of its containers, and with its folder in
// their command line.
func (d *daemon) processes() (map[int]string, error) {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Either may fail because the process has just ended.
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		cgroups, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if strings.Contains(string(line), d.dir) || strings.Contains(string(cgroups), d.cgroup()+"/") {
			found[pid] = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found, err
}

func (d *daemon) killProcesses() error {
	return poll(func() error {
		left, err := d.processes()
		for pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		if len(left) > 0 {
			return fmt.Errorf("processes are left: %v", left)
		}
		return err
	})
}

// mountsOf lists the mount points of one kind, or all if there is none.
func mountsOf(kind string) ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(info)) {
		// 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw
		head, tail, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(head); len(fields) > 4 && strings.HasPrefix(tail, kind) {
			points = append(points, fields[4])
		}
	}
	return points, err
}

// unmount leaves no mount in the folder of the run, before it is removed.
func (d *daemon) unmount() error {
	return poll(func() error {
		points, err := mountsOf("")
		if err != nil {
			return err
		}
		left := 0
		for _, point := range slices.Backward(points) {
			if strings.HasPrefix(point, d.dir+"/") {
				left++
				_ = unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // seen by the next look
			}
		}
		if left > 0 {
			return fmt.Errorf("%d mounts were left below %s", left, d.dir)
		}
		return nil
	})
}

func (d *daemon) removeCgroups() error {
	points, err := mountsOf("cgroup")
	if err != nil {
		return err
	}
	return poll(func() error {
		var errs []error
		for _, point := range points {
			var folders []string
			_ = filepath.WalkDir(filepath.Join(point, d.cgroup()), func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					folders = append(folders, path)
				}
				return nil
			})
			for _, folder := range slices.Backward(folders) {
				if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
			_ = os.Remove(filepath.Join(point, cgroupParent)) // unless another run is in it
		}
		return errors.Join(errs...)
	})
}

// poll calls check until it succeeds, and returns its last error.
func poll(check func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

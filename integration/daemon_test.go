package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

// The images that the Makefile builds.
const (
	imageBookworm = "localhost/debian-bookworm:latest" // systemd 252, cron, rsyslog, sshd
	imageSid      = "localhost/debian-sid:latest"      // the newest systemd
	imageBusybox  = "localhost/busybox:latest"         // no init, no /run
	imageScratch  = "localhost/scratch:latest"         // only /hello

	imageSysvinit    = "localhost/debian-bookworm-sysvinit:latest" // with Debian's boot scripts, cron
	imageInitBusybox = "localhost/init-busybox:latest"             // busybox init, no inittab
	imageInitAlpine  = "localhost/init-alpine:latest"              // busybox init, six gettys, OpenRC
	imageInitOpenRC  = "localhost/init-openrc:latest"              // openrc-init
	imageRunit       = "localhost/debian-bookworm-runit:latest"    // runit with Debian's gettys
)

const (
	runPrefix    = "rich-test-"
	cgroupParent = "/rich-test"
)

// daemon is a containerd that shares nothing with the machine's own one.
type daemon struct {
	// dir holds everything of the run: root, state, sockets, logs.
	dir    string
	client *containerd.Client

	command *exec.Cmd
	exited  chan struct{} // closed when containerd has ended

	imagesLock sync.Mutex
	images     map[string]containerd.Image

	removeOnce sync.Once
}

// name tells this run from others on the same machine.
func (d *daemon) name() string { return filepath.Base(d.dir) }

// cgroup is the parent of the cgroups of all containers of this run.
func (d *daemon) cgroup() string { return cgroupParent + "/" + d.name() }

func (d *daemon) address() string { return filepath.Join(d.dir, "containerd.sock") }

// log is where containerd and, through it, the shims write.
func (d *daemon) log() string { return filepath.Join(d.dir, "containerd.log") }

// context returns a context in the tests' namespace.
func (d *daemon) context() context.Context {
	return namespaces.WithNamespace(context.Background(), testNamespace)
}

// within is context with a time limit.
func (d *daemon) within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.context(), limit)
}

func startDaemon() (_ *daemon, err error) {
	dir, err := os.MkdirTemp("", runPrefix)
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, images: map[string]containerd.Image{}, exited: make(chan struct{})}
	defer func() {
		if err != nil {
			d.remove()
		}
	}()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, err
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return nil, fmt.Errorf("%s is on overlayfs, which cannot carry another one: set TMPDIR to a folder on ext4, xfs or tmpfs", dir)
	}
	if err := os.WriteFile(filepath.Join(dir, "owner"), []byte(ownerMark(os.Getpid())), 0o644); err != nil {
		return nil, err
	}
	// The client mounts snapshots below the temporary folder: keep these in our own one as well.
	for _, sub := range []string{"tmp", "client-tmp", "fifo"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	os.Setenv("TMPDIR", filepath.Join(dir, "client-tmp"))
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(d.config()), 0o644); err != nil {
		return nil, err
	}
	if err := d.launch(); err != nil {
		return nil, err
	}
	return d, d.connect()
}

func (d *daemon) config() string {
	return strings.ReplaceAll(`version = 4
root = "DIR/root"
state = "DIR/state"
temp = "DIR/tmp"
imports = []
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.monitor.container.v1.restart"]
[debug]
  level = "debug"
[plugins."io.containerd.server.v1.grpc"]
  address = "DIR/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "DIR/containerd.sock.ttrpc"
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "DIR/s"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "DIR/image-verifier"
`, "DIR", d.dir)
}

func (d *daemon) launch() error {
	log, err := os.Create(d.log())
	if err != nil {
		return err
	}
	defer log.Close()
	d.command = exec.Command(buildPath("tools/containerd"), "--config", filepath.Join(d.dir, "config.toml"))
	d.command.Stdout, d.command.Stderr = log, log
	d.command.Env = append(os.Environ(),
		"PATH="+buildPath("bin")+":"+os.Getenv("PATH"),
		"TMPDIR="+filepath.Join(d.dir, "tmp"))
	// A test process that is killed takes containerd along; a terminal's Ctrl-C is for the test process alone.
	d.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started := make(chan error)
	go func() {
		// The parent death signal follows the thread, not the process.
		runtime.LockOSThread()
		err := d.command.Start()
		started <- err
		if err == nil {
			_ = d.command.Wait() // ProcessState tells how it ended
			close(d.exited)
		}
	}()
	return <-started
}

func (d *daemon) connect() error {
	return poll(patience(30*time.Second), func() error {
		select {
		case <-d.exited:
			return fmt.Errorf("containerd ended (%v):\n%s", d.command.ProcessState, d.logTail("", 20))
		default:
		}
		if d.client == nil {
			client, err := containerd.New(d.address(), containerd.WithTimeout(time.Second))
			if err != nil {
				return err
			}
			d.client = client
		}
		ctx, cancel := d.within(time.Second)
		defer cancel()
		_, err := d.client.Version(ctx)
		return err
	})
}

// image returns an image of build/images, imported and unpacked at its first use.
func (d *daemon) image(t testing.TB, name string) containerd.Image {
	t.Helper()
	d.imagesLock.Lock()
	defer d.imagesLock.Unlock()
	if image, found := d.images[name]; found {
		return image
	}
	image, err := d.importImage(name)
	if err != nil {
		t.Fatalf("image %s: %v; is it built? run \"make integration\"", name, err)
	}
	d.images[name] = image
	return image
}

func (d *daemon) importImage(name string) (containerd.Image, error) {
	base := strings.TrimSuffix(strings.TrimPrefix(name, "localhost/"), ":latest")
	file, err := os.Open(buildPath("images/" + base + ".tar"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	ctx, cancel := d.within(patience(5 * time.Minute))
	defer cancel()
	if _, err := d.client.Import(ctx, file); err != nil {
		return nil, err
	}
	image, err := d.client.GetImage(ctx, name)
	if err != nil {
		return nil, err
	}
	return image, image.Unpack(ctx, "")
}

// logTail returns the last lines of containerd's log that contain text.
func (d *daemon) logTail(text string, lines int) string {
	content, err := os.ReadFile(d.log())
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return strings.Join(found[max(0, len(found)-lines):], "")
}

// remove ends containerd and everything that is left of the run.
func (d *daemon) remove() {
	d.removeOnce.Do(func() {
		if d.client != nil {
			d.client.Close()
		}
		if d.command != nil && d.command.Process != nil {
			d.command.Process.Signal(syscall.SIGTERM)
			select {
			case <-d.exited:
			case <-time.After(10 * time.Second):
				d.command.Process.Kill()
				<-d.exited
			}
		}
		d.keepLog()
		if err := removeRun(d.dir); err != nil {
			complain("%v", err)
		}
	})
}

// keepLog leaves containerd's log where it can be read after the run.
func (d *daemon) keepLog() {
	content, err := os.ReadFile(d.log())
	if err != nil {
		return
	}
	if err := os.WriteFile(buildPath("integration-containerd.log"), content, 0o644); err != nil {
		complain("%v", err)
	}
}

// ownerMark identifies a process also after its pid was given to another one.
func ownerMark(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The fields behind the name, which may hold anything; the start time is field 22 of the whole line.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fmt.Sprintf("%d %s", pid, fields[19])
}

// sweepDeadRuns removes what test processes left that were killed before they could.
func sweepDeadRuns() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		mark, err := os.ReadFile(filepath.Join(dir, "owner"))
		if err != nil {
			continue // not ours, or just being made
		}
		pid, _ := strconv.Atoi(strings.Fields(string(mark) + " 0")[0])
		if ownerMark(pid) == string(mark) {
			continue
		}
		complain("removing %s of an interrupted run", dir)
		errs = append(errs, removeRun(dir))
	}
	return errors.Join(errs...)
}

// removeRun kills the processes of a run, then removes its mounts, cgroups and folder.
func removeRun(dir string) error {
	err := poll(20*time.Second, func() error {
		processes, err := processesOf(dir)
		if err != nil || len(processes) == 0 {
			return err
		}
		for _, p := range processes {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
		return fmt.Errorf("processes are left: %v", processes)
	})
	if err != nil {
		return err
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := removeCgroups(filepath.Base(dir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unmountBelow unmounts everything below dir, and makes sure of it: removing a folder with a mount left in it
// would remove the files of the mount.
func unmountBelow(dir string) error {
	return poll(10*time.Second, func() error {
		mounts, err := readMounts()
		if err != nil {
			return err
		}
		var left []string
		for i := len(mounts) - 1; i >= 0; i-- {
			if point := mounts[i].point; isBelow(point, dir) {
				left = append(left, point)
				_ = unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("mounts were left below %s: %s", dir, strings.Join(left, " "))
		}
		return nil
	})
}

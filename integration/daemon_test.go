package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	imageTrixie   = "localhost/debian-trixie:latest"   // systemd 257
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
	dir     string
	release release
	client  *containerd.Client

	command *exec.Cmd
	exited  chan struct{} // closed when containerd has ended

	imagesLock sync.Mutex
	images     map[string]containerd.Image

	otherEvents bool // events has its second name

	// programs is the folder of the shim and its programs.
	programs string

	removeOnce sync.Once
}

// daemons are all that were started, for removeDaemons.
var daemons struct {
	lock sync.Mutex
	all  []*daemon
}

// removeDaemons removes all daemons at once.
func removeDaemons() {
	daemons.lock.Lock()
	defer daemons.lock.Unlock()
	for _, d := range daemons.all {
		d.remove()
	}
}

// name tells this run from others on the same machine.
func (d *daemon) name() string { return filepath.Base(d.dir) }

// cgroup is the parent of the cgroups of all containers of this run.
func (d *daemon) cgroup() string { return cgroupParent + "/" + d.name() }

func (d *daemon) address() string { return filepath.Join(d.dir, "containerd.sock") }

// events is where containerd takes the events of shims.
func (d *daemon) events() string {
	if d.otherEvents {
		return d.address() + ".ttrpc.2"
	}
	return d.address() + ".ttrpc"
}

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

// startDaemon starts the newest containerd, and puts temporary files of this process into its folder from then on.
func startDaemon() (*daemon, error) {
	d, err := startRelease(newest, os.TempDir())
	if err != nil {
		return nil, err
	}
	// The client mounts snapshots below the temporary folder: keep these in our own one as well.
	return d, os.Setenv("TMPDIR", filepath.Join(d.dir, "client-tmp"))
}

// startRelease starts a containerd with a folder of its own in parent.
func startRelease(of release, parent string, opts ...func(*daemon)) (_ *daemon, err error) {
	dir, err := os.MkdirTemp(parent, runPrefix)
	if err != nil {
		return nil, err
	}
	// Root of a user namespace has to get to its root file system.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, release: of, images: map[string]containerd.Image{}, programs: buildPath("bin")}
	for _, opt := range opts {
		opt(d)
	}
	daemons.lock.Lock()
	daemons.all = append(daemons.all, d)
	daemons.lock.Unlock()
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
	for _, sub := range []string{"tmp", "client-tmp", "fifo"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.configure(); err != nil {
		return nil, err
	}
	if err := d.launch(); err != nil {
		return nil, err
	}
	return d, d.connect()
}

// configure writes the configuration of the daemon's release.
func (d *daemon) configure() error {
	config := strings.NewReplacer("DIR", d.dir, "EVENTS", d.events()).Replace(d.release.config)
	return os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(config), 0o644)
}

// kill ends containerd as a crash would: with no chance to tell the shims.
func (d *daemon) kill() error {
	if err := d.command.Process.Kill(); err != nil {
		return err
	}
	<-d.exited
	return nil
}

// restart starts containerd again after kill.
func (d *daemon) restart() error {
	if err := d.launch(); err != nil {
		return err
	}
	// Not left to the old connection, which waits longer after each failure.
	if err := d.client.Reconnect(); err != nil {
		return err
	}
	return d.connect()
}

func (d *daemon) launch() error {
	log, err := os.OpenFile(d.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command, exited := exec.Command(d.release.binary(), "--config", filepath.Join(d.dir, "config.toml")), make(chan struct{})
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(),
		"PATH="+d.programs+":"+os.Getenv("PATH"),
		"TMPDIR="+filepath.Join(d.dir, "tmp"))
	// A test process that is killed takes containerd along; a terminal's Ctrl-C is for the test process alone.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started := make(chan error)
	go func() {
		// The parent death signal follows the thread, not the process.
		runtime.LockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // ProcessState tells how it ended
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	d.command, d.exited = command, exited
	return nil
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
		if d.command != nil {
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
	if err := os.WriteFile(buildPath("integration-"+d.release.name+".log"), content, 0o644); err != nil {
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
	// Before containerd 2.3 the sockets are in a folder of the whole machine, and only the bundles tell which are whose.
	addresses, err := filepath.Glob(filepath.Join(dir, "state/io.containerd.runtime.v2.task", testNamespace, "*/address"))
	if err != nil {
		return err
	}
	for _, file := range addresses {
		address, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.Remove(strings.TrimPrefix(string(address), "unix://")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := removeCgroups(dir); err != nil {
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

// Whatever this run was started to ignore, containerd and all that it starts do not.
func TestDaemonIgnoresNoSignal(t *testing.T) {
	for _, line := range readLines(t, fmt.Sprintf("/proc/%d/status", private.command.Process.Pid)) {
		mask, ok := strings.CutPrefix(line, "SigIgn:\t")
		if !ok {
			continue
		}
		if ignored, err := strconv.ParseUint(mask, 16, 64); err != nil || ignored&(1<<(syscall.SIGHUP-1)|1<<(syscall.SIGINT-1)) != 0 {
			t.Errorf("it ignores %s, %v", mask, err)
		}
		return
	}
	t.Error("nothing about it is known")
}

package integration

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"containerd-shim-rich/integration/containerdtest"
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

// runGroup is what the runs of these tests have in common.
const runGroup = "rich-test"

// daemon is a containerd of the tests.
type daemon struct{ *containerdtest.Daemon }

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

// context returns a context in the tests' namespace.
func (d *daemon) context() context.Context {
	return namespaces.WithNamespace(context.Background(), testNamespace)
}

// within is context with a time limit.
func (d *daemon) within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.context(), limit)
}

// daemonLimit bounds the waits for containerd, and for the end of what is left of a run.
func daemonLimit() time.Duration { return patience(30 * time.Second) }

// startDaemon starts the newest containerd, and puts temporary files of this process into its folder from then on.
func startDaemon() (*daemon, error) {
	d, err := startRelease(newest, os.TempDir())
	if err != nil {
		return nil, err
	}
	// The client mounts snapshots below the temporary folder: keep these in our own one as well.
	return d, os.Setenv("TMPDIR", d.ClientTemp())
}

// startRelease starts a containerd with a folder of its own in parent.
func startRelease(of release, parent string, opts ...func(*daemon)) (*daemon, error) {
	started, err := containerdtest.New(containerdtest.Settings{
		Group: runGroup, Parent: parent, LogLevel: "debug", Path: []string{buildPath("bin")}, Images: buildPath("images"),
		Limit: daemonLimit(),
	})
	if err != nil {
		return nil, err
	}
	d := &daemon{started}
	d.use(of)
	for _, opt := range opts {
		opt(d)
	}
	daemons.lock.Lock()
	daemons.all = append(daemons.all, d)
	daemons.lock.Unlock()
	if err := d.Start(); err != nil {
		d.remove()
		return nil, err
	}
	return d, nil
}

// use has the next start start a release.
func (d *daemon) use(of release) {
	d.Program, d.ConfigVersion = of.binary(), of.config
	d.KeepLog = buildPath("integration-" + of.name + ".log")
}

// image returns an image of build/images, imported and unpacked at its first use.
func (d *daemon) image(t testing.TB, name string) containerd.Image {
	t.Helper()
	ctx, cancel := d.within(patience(5 * time.Minute))
	defer cancel()
	image, err := d.Image(ctx, strings.TrimSuffix(strings.TrimPrefix(name, "localhost/"), ":latest"))
	if err != nil {
		t.Fatalf("image %s: %v; is it built? run \"make integration\"", name, err)
	}
	return image
}

// remove ends containerd and everything that is left of the run.
func (d *daemon) remove() {
	if err := d.Remove(); err != nil {
		complain("%v", err)
	}
}

// sweepDeadRuns removes what test processes left that were killed before they could.
func sweepDeadRuns() error {
	return containerdtest.Sweep(runGroup, daemonLimit(), func(dir string) { complain("removing %s of an interrupted run", dir) })
}

// Whatever this run was started to ignore, containerd and all that it starts do not.
func TestDaemonIgnoresNoSignal(t *testing.T) {
	for _, line := range readLines(t, fmt.Sprintf("/proc/%d/status", private.Pid())) {
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

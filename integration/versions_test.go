package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/events"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/integration/containerdtest"
)

// release is a containerd to run the tests with.
type release struct {
	// name is "containerd" and the release line, and for an older one its folder in build/tools.
	name string
	// config is the version of its configuration.
	config int
}

// newest is what all other tests run with.
var newest = release{"containerd-2.4", 4}

// releases are all that the shim is to serve.
var releases = []release{
	{"containerd-1.6", 2},
	{"containerd-1.7", 2},
	{"containerd-2.0", 3},
	{"containerd-2.1", 3},
	{"containerd-2.2", 3},
	{"containerd-2.3", 4},
	newest,
}

// line is the release line, for example 2.4.
func (r release) line() string { return strings.TrimPrefix(r.name, "containerd-") }

func (r release) binary() string {
	if r.name == newest.name {
		return buildPath("tools/containerd")
	}
	return buildPath("tools/" + r.name + "/containerd")
}

// start starts a daemon of this release for one test.
func (r release) start(t *testing.T, opts ...func(*daemon)) *daemon {
	t.Helper()
	if _, err := os.Stat(r.binary()); err != nil {
		t.Fatalf("%s is not built (%v): run \"make integration\"", r.name, err)
	}
	d, err := startRelease(r, filepath.Dir(private.Dir), opts...)
	if err != nil {
		t.Fatalf("start %s: %v", r.name, err)
	}
	t.Cleanup(d.remove)
	ctx, cancel := d.within(callLimit)
	defer cancel()
	version, err := d.Client.Version(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is %s", r.name, version.Version)
	if !strings.HasPrefix(strings.TrimPrefix(version.Version, "v"), r.line()+".") {
		t.Fatalf("%s is version %s", r.binary(), version.Version)
	}
	return d
}

// TestContainerdVersions runs each release that the shim is to serve. Between them are two ways to start a shim, two
// versions of the task service, and several ways to find a shim again after a restart.
func TestContainerdVersions(t *testing.T) {
	t.Parallel()
	for _, of := range releases {
		t.Run(of.line(), func(t *testing.T) {
			t.Parallel()
			d := of.start(t)
			d.image(t, imageBookworm)
			for _, v := range []variant{plain, systemdBookworm} {
				t.Run(v.init, func(t *testing.T) {
					for _, c := range []struct {
						name string
						run  func(t *testing.T, d *daemon, v variant)
					}{
						{"stop", versionStop},
						{"exit", versionExit},
						{"daemon killed", versionDaemonKilled},
						{"shim killed", versionShimKilled},
						{"shared shim", versionSharedShim},
						{"options", versionOptions},
						{"create given up", versionGivenUp},
					} {
						if v == systemdBookworm && (c.name == "shared shim" || c.name == "options" || c.name == "create given up") {
							continue // these are not about what is in the container
						}
						t.Run(c.name, func(t *testing.T) {
							before, err := d.snapshot()
							if err != nil {
								t.Fatal(err)
							}
							c.run(t, d, v)
							if diff := d.settle(before, runLimit); diff != "" {
								t.Errorf("the host changed (- before, + after):\n%s", diff)
							}
						})
					}
				})
			}
		})
	}
}

// A shim that has events left stays for a while after its end, and a new one may listen in its place. This containerd has
// the sockets where the shim library looks for them by itself.
func TestShimLeavesSocketOfNext(t *testing.T) {
	t.Parallel()
	d := releases[len(releases)-3].start(t)
	d.image(t, imageBusybox)
	id := newID(t)
	opts := []taskOption{withDaemon(d), withID(id), withInit("none"), answering}
	run := startTask(t, imageBusybox, opts...)
	run.WaitOutput("ready", runLimit)
	old := run.shimPID()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	listen := d.resumeUnheard(t)
	run.reattach()
	run.Kill(syscall.SIGKILL)
	run.Wait(runLimit)
	run.Delete()
	next := startTask(t, imageBusybox, opts...)
	if err := syscall.Kill(old, 0); err != nil {
		t.Fatalf("the shim did not wait for its events to be heard: %v", err)
	}
	next.WaitOutput("ready", runLimit)
	listen()
	eventually(t, runLimit, "the end of the shim", func() error {
		if err := syscall.Kill(old, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d: %w", old, err)
		}
		return nil
	})
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	next.reattach()
	next.answers(next.Task.Pid())
	next.Kill(syscall.SIGTERM)
	if code := next.Wait(runLimit); code != 5 {
		t.Errorf("exit status %d", code)
	}
	next.Delete()
}

// TestContainerdUpgrade keeps tasks running while their containerd is replaced by the newest one.
func TestContainerdUpgrade(t *testing.T) {
	t.Parallel()
	for _, of := range releases[:len(releases)-1] {
		t.Run("from "+of.line(), func(t *testing.T) {
			t.Parallel()
			d := of.start(t)
			run, _, gone := watchOn(t, d, variant{image: imageBusybox, init: "dumb-init"}, answering)
			run.WaitOutput("ready", runLimit)
			if err := d.Kill(); err != nil {
				t.Fatal(err)
			}
			d.use(newest)
			if err := d.Configure(); err != nil {
				t.Fatal(err)
			}
			if err := d.Restart(); err != nil {
				t.Fatalf("restart: %v", err)
			}
			log := d.subscribe(t, run.ID)
			run.reattach()
			run.answers(run.Task.Pid())
			run.Kill(syscall.SIGTERM)
			run.outcome(log, 5)
			gone()
		})
	}
}

// answering is a command that tells USR1 from a restart of its own, and ends with 5 when it is stopped.
var answering = withArgs("sh", "-c", "trap 'exit 5' TERM; trap 'echo usr1' USR1; "+ready+idle)

// watchOn is watch for a daemon of the test's own. The function it returns fails the test if the shim's socket is still
// there: before containerd 2.3 it lies in a folder that the whole machine shares.
func watchOn(t *testing.T, d *daemon, v variant, opts ...taskOption) (run *task, log *eventLog, gone func()) {
	t.Helper()
	id := newID(t)
	log = d.subscribe(t, id)
	opts = append(opts, withDaemon(d), withID(id))
	if v.init != "" {
		opts = append(opts, withInit(v.init))
	}
	run = startTask(t, v.image, opts...)
	address, err := os.ReadFile(run.bundle("address"))
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(string(address), "unix://")
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	return run, log, func() {
		t.Helper()
		eventually(t, runLimit, "the end of the shim's socket", func() error {
			if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
				return errors.Join(errors.New(socket+" is there"), err)
			}
			return nil
		})
	}
}

// answers looks at a task from all sides: its state, an exec, and a signal that reaches the same command as before.
func (r *task) answers(pid uint32) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	found, err := r.Container.Task(ctx, nil)
	if err != nil {
		r.fatal("find the task: %v", err)
	}
	if found.Pid() != pid {
		r.t.Errorf("the task has pid %d, want %d", found.Pid(), pid)
	}
	r.running()
	if got, want := r.Exec("sh", "-c", "echo out; echo err >&2; exit 7"), (result{"out\n", "err\n", 7}); got != want {
		r.t.Errorf("exec gave %+v, want %+v", got, want)
	}
	before := strings.Count(r.Stdout.String(), "usr1\n")
	r.Kill(syscall.SIGUSR1)
	eventually(r.t, runLimit, "the command's answer", func() error {
		if n := strings.Count(r.Stdout.String(), "usr1\n"); n != before+1 {
			return fmt.Errorf("%d answers, want %d", n, before+1)
		}
		return nil
	})
	if got := r.Stdout.String(); strings.Count(got, "ready\n") != 1 {
		r.t.Errorf("the command said %q, want one ready", got)
	}
}

func versionStop(t *testing.T, d *daemon, v variant) {
	run, log, gone := watchOn(t, d, v, answering)
	run.WaitOutput("ready", runLimit)
	run.answers(run.Task.Pid())
	run.Kill(syscall.SIGTERM)
	run.outcome(log, 5)
	gone()
}

func versionExit(t *testing.T, d *daemon, v variant) {
	run, log, gone := watchOn(t, d, v, withArgs("sh", "-c", "echo out; echo err >&2; exit 42"))
	run.outcome(log, 42)
	if out, err := run.Stdout.String(), run.Stderr.String(); out != "out\n" || err != "err\n" {
		t.Errorf("output %q %q", out, err)
	}
	gone()
}

// One task lives through the daemon's absence, another one ends in it.
func versionDaemonKilled(t *testing.T, d *daemon, v variant) {
	dir := t.TempDir()
	lives, _, livesGone := watchOn(t, d, v, answering)
	ends, _, endsGone := watchOn(t, d, v, withBind(dir, "/ctl", "rbind", "ro"),
		withArgs("sh", "-c", ready+"until test -e /ctl/end; do sleep 0.1; done; exit 3"))
	lives.WaitOutput("ready", runLimit)
	ends.WaitOutput("ready", runLimit)

	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, runLimit, "the end of pid 1", func() error {
		err := syscall.Kill(int(ends.Task.Pid()), 0)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("process %d: %w", ends.Task.Pid(), err)
	})
	if err := d.Restart(); err != nil {
		t.Fatalf("restart: %v", err)
	}

	// The streams of events ended with the daemon.
	log := d.subscribe(t, lives.ID)
	ends.reattach()
	if code := ends.Wait(runLimit); code != 3 {
		t.Errorf("wait reports %d, want 3", code)
	}
	if code := ends.Delete(); code != 3 {
		t.Errorf("delete reports %d, want 3", code)
	}
	endsGone()

	lives.reattach()
	lives.answers(lives.Task.Pid())
	lives.Kill(syscall.SIGTERM)
	lives.outcome(log, 5)
	livesGone()
}

// containerd learns from the shim's program how a task ended whose shim is gone.
func versionShimKilled(t *testing.T, d *daemon, v variant) {
	run, log, gone := watchOn(t, d, v, answering)
	run.WaitOutput("ready", runLimit)
	if err := syscall.Kill(run.shimPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit := log.Wait(runtime.TaskExitEventTopic, runLimit).(*events.TaskExit)
	if exit.ExitStatus != 137 || exit.Pid != run.Task.Pid() {
		t.Errorf("the exit event is %v, want pid %d with status 137", exit, run.Task.Pid())
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
	eventually(t, runLimit, "the end of the task", func() error {
		ctx, cancel := d.within(callLimit)
		defer cancel()
		if _, err := run.Container.Task(ctx, nil); !errdefs.IsNotFound(err) {
			return errors.Join(errors.New("the task is still there"), err)
		}
		return nil
	})
	run.Task.IO().Cancel()
	run.Task.IO().Close()
	ctx, cancel := d.within(callLimit)
	defer cancel()
	if err := run.Container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		t.Fatal(err)
	}
	run.deleted = true
	gone()
}

// A restarted daemon has to find the one shim for each of its containers.
func versionSharedShim(t *testing.T, d *daemon, v variant) {
	group := withAnnotation("io.containerd.runc.v2.group", newID(t))
	first, _, gone := watchOn(t, d, v, answering, group)
	shim := first.shimPID()
	second, _, _ := watchOn(t, d, v, answering, group)
	first.WaitOutput("ready", runLimit)
	second.WaitOutput("ready", runLimit)
	processes, err := containerdtest.Processes(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if p.Pid != shim && strings.Contains(p.Text, "containerd-shim-rich-v2") {
			t.Errorf("a second shim: %v", p)
		}
	}

	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(); err != nil {
		t.Fatalf("restart: %v", err)
	}
	for _, run := range []*task{first, second} {
		log := d.subscribe(t, run.ID)
		run.reattach()
		run.answers(run.Task.Pid())
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
	}
	gone()
}

// The handler's options come with the request to start a shim or to create a task, depending on the release.
// A create ends with the client that wants it.
func versionGivenUp(t *testing.T, d *daemon, v variant) {
	for _, way := range ways {
		script, arm, began := hang(t)
		run := newTask(t, v.image, v.with(withDaemon(d), withHook("createRuntime", specs.Hook{Path: script}), withArgs("sleep", "1000"))...)
		run.discard()
		arm()
		run.givenUp(way, fixedIO{}, began)
	}
}

func versionOptions(t *testing.T, d *daemon, v variant) {
	run, log, gone := watchOn(t, d, variant{image: v.image}, withArgs("sleep", "1000"),
		withRuntimeOptions(&runtimeoptions.Options{ConfigBody: []byte("[rich]\ninit = \"none\"\n")}))
	// Without the options it would be systemd.
	run.waitCommandLine("sleep", "1000")
	if got := run.Exec("cat", "/proc/1/comm"); got.Stdout != "sleep\n" {
		t.Errorf("pid 1 is %+v", got)
	}
	run.Kill(syscall.SIGKILL)
	run.outcome(log, 137)
	gone()
}

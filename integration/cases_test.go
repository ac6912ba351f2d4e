package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// runLimit bounds the life of one container, boot and shutdown included.
var runLimit = patience(60 * time.Second)

// variant is one way to run a command that must make no difference to it.
type variant struct {
	name, image, init string
}

var (
	// plain is the reference: nothing but what runc does.
	plain           = variant{"none", imageBookworm, "none"}
	dumbInit        = variant{"dumb-init", imageBookworm, "dumb-init"}
	systemdBookworm = variant{"systemd-252", imageBookworm, "systemd"}
	systemdSid      = variant{"systemd-sid", imageSid, "systemd"}
)

// forEach runs check once for each variant, in parallel.
func forEach(t *testing.T, variants []variant, check func(t *testing.T, v variant)) {
	t.Helper()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			check(t, v)
		})
	}
}

// with puts the variant's init before other options.
func (v variant) with(opts ...taskOption) []taskOption {
	return append([]taskOption{withInit(v.init)}, opts...)
}

// likeRunc runs the probe under the variants and expects the very report that it gives without any init.
// check looks at that one, so that a reference which is wrong itself is noticed.
func likeRunc(t *testing.T, variants []variant, check func(t *testing.T, want probeReport), opts ...taskOption) {
	t.Helper()
	got := runTask(t, plain.image, runLimit, plain.with(opts...)...)
	if got.Code != 0 || got.Stderr != "" {
		t.Fatalf("without init: %+v", got)
	}
	want := parseReport(t, got.Stdout)
	check(t, want)
	forEach(t, variants, func(t *testing.T, v variant) {
		got := runTask(t, v.image, runLimit, v.with(opts...)...)
		if got.Code != 0 || got.Stderr != "" {
			t.Fatalf("got %+v", got)
		}
		sameProcess(t, parseReport(t, got.Stdout), want)
	})
}

// sameProcess compares all that a process can tell about itself, but for where it is in the tree of processes.
func sameProcess(t *testing.T, got, want probeReport) {
	t.Helper()
	if leader, wanted := got.PID == got.SID && got.PID == got.PGID, want.PID == want.SID && want.PID == want.PGID; leader != wanted {
		t.Errorf("leads its session and group: %v, want %v", leader, wanted)
	}
	for name := range want.Namespaces {
		if len(got.Namespaces[name]) == 0 {
			t.Errorf("no namespace %s", name)
		}
	}
	a, b := reflect.ValueOf(unplaced(got)), reflect.ValueOf(unplaced(want))
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			t.Errorf("%s:\n got %s\nwant %s", a.Type().Field(i).Name, show(a.Field(i).Interface()), show(b.Field(i).Interface()))
		}
	}
}

// streamName matches the fifo of a stream, whose folder and container differ each time.
var streamName = regexp.MustCompile(`^/.*-(std(in|out|err))$`)

func unplaced(r probeReport) probeReport {
	// Execs have pipes, each with a number of its own.
	pipes := map[string]int{}
	stream := func(name []byte) []byte {
		if bytes.HasPrefix(name, []byte("pipe:")) {
			if _, seen := pipes[string(name)]; !seen {
				pipes[string(name)] = len(pipes)
			}
			return fmt.Appendf(nil, "pipe %d", pipes[string(name)])
		}
		return streamName.ReplaceAll(name, []byte("fifo $1"))
	}
	r.PID, r.PPID, r.SID, r.PGID, r.Namespaces, r.Cgroup = 0, 0, 0, 0, nil, nil
	for i := range r.Stdio {
		r.Stdio[i] = stream(r.Stdio[i])
	}
	files := map[string][]byte{}
	for fd, name := range r.FDs {
		files[fd] = stream(name)
	}
	r.FDs = files
	r.SigIgnored = withoutCancel(r.SigIgnored)
	return r
}

// withoutCancel clears signal 32 in a mask of signals. glibc keeps it for itself and lets nobody change it;
// its posix_spawn, with which make starts us, leaves it ignored, and without an init the command inherits that.
func withoutCancel(mask string) string {
	signals, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return mask
	}
	return fmt.Sprintf("%016x", signals&^(1<<31))
}

func show(v any) string {
	if list, ok := v.([][]byte); ok {
		v = strings.Split(string(slices.Concat(join(list)...)), "\n")
	}
	text := fmt.Sprintf("%.4000q", fmt.Sprint(v))
	return text
}

func join(list [][]byte) [][]byte {
	var out [][]byte
	for _, entry := range list {
		out = append(out, fmt.Appendf(nil, "%.200q\n", entry))
	}
	return out
}

// withRootfs changes the container's root file system before the runtime sees it.
func withRootfs(change func(root *os.Root) error) taskOption {
	return withSpec(func(ctx context.Context, client oci.Client, c *containers.Container, _ *oci.Spec) error {
		mounts, err := client.SnapshotService(c.Snapshotter).Mounts(ctx, c.SnapshotKey)
		if err != nil {
			return err
		}
		return mount.WithTempMount(ctx, mounts, func(dir string) error {
			root, err := os.OpenRoot(dir)
			if err != nil {
				return err
			}
			return errors.Join(change(root), root.Close())
		})
	})
}

// withFile puts a file into the root file system, with its folders.
func withFile(name, content string, mode fs.FileMode) taskOption {
	return withRootfs(func(root *os.Root) error {
		name := strings.TrimPrefix(name, "/")
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return errors.Join(root.WriteFile(name, []byte(content), mode), root.Chmod(name, mode))
	})
}

// withLink puts a symbolic link into the root file system, in place of what is there.
func withLink(name, target string) taskOption {
	return withRootfs(func(root *os.Root) error {
		name := strings.TrimPrefix(name, "/")
		return errors.Join(root.RemoveAll(name), root.Symlink(target, name))
	})
}

// without removes something from the root file system.
func without(name string) taskOption {
	return withRootfs(func(root *os.Root) error { return root.RemoveAll(strings.TrimPrefix(name, "/")) })
}

// withUser sets uid, gid and the further groups.
func withUser(uid, gid uint32, groups ...uint32) taskOption {
	return withProcess(func(p *specs.Process) {
		p.User = specs.User{UID: uid, GID: gid, AdditionalGids: groups, Umask: p.User.Umask}
	})
}

// withoutRunMount gives the spec that CRI makes: containerd's own, but with no tmpfs at /run.
func withoutRunMount() taskOption { return withSpec(oci.WithoutRunMount) }

// withUnit adds a unit to the image's own that is started with the others.
func withUnit(name, content string) taskOption {
	return func(s *taskSettings) {
		withFile("/etc/systemd/system/"+name, content, 0o644)(s)
		withWants("multi-user.target", name)(s)
	}
}

// withWants lets a target start a unit.
func withWants(target, name string) taskOption {
	return withRootfs(func(root *os.Root) error {
		wants := "etc/systemd/system/" + target + ".wants"
		return errors.Join(root.MkdirAll(wants, 0o755), root.Symlink("../"+name, wants+"/"+name))
	})
}

// bundle is the container's bundle on the host.
func (r *task) bundle(name ...string) string {
	return filepath.Join(append([]string{r.daemon.Dir, "state/io.containerd.runtime.v2.task", testNamespace, r.ID}, name...)...)
}

// shimPID finds the shim of a container.
func (r *task) shimPID() int {
	r.t.Helper()
	processes, err := containerdtest.Processes(r.daemon.Dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range processes {
		if strings.Contains(p.Text, "containerd-shim-rich-v2") && strings.Contains(p.Text+" ", "-id "+r.ID+" ") {
			return p.Pid
		}
	}
	r.fatal("no shim of %s in %v", r.ID, processes)
	return 0
}

// commandLines returns the command line of every process of the container.
func (r *task) commandLines() []string {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	pids, err := r.Task.Pids(ctx)
	if err != nil {
		r.fatal("pids: %v", err)
	}
	var lines []string
	for _, p := range pids {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid)); err == nil {
			lines = append(lines, string(line))
		}
	}
	return lines
}

// waitCommandLine waits until a process has exactly this argv.
func (r *task) waitCommandLine(args ...string) {
	r.t.Helper()
	want := strings.Join(args, "\x00") + "\x00"
	err := poll(runLimit, func() error {
		lines := r.commandLines()
		if slices.Contains(lines, want) {
			return nil
		}
		return fmt.Errorf("no process %q in %q", want, lines)
	})
	if err != nil {
		r.fatal("%v", err)
	}
}

// running fails the test unless the task is running.
func (r *task) running() {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	status, err := r.Task.Status(ctx)
	if err != nil {
		r.fatal("status: %v", err)
	}
	if status.Status != containerd.Running {
		r.fatal("the task is %v with status %d, want it to run", status.Status, status.ExitStatus)
	}
}

// stop ends the task by SIGTERM and deletes all of it.
func (r *task) stop() {
	r.t.Helper()
	r.Kill(syscall.SIGTERM)
	r.Wait(runLimit)
	r.Delete()
}

// outcome waits for the end of a task and deletes it. Wait, the exit event and delete must tell the same status.
func (r *task) outcome(log *eventLog, want int) {
	r.t.Helper()
	if code := r.Wait(runLimit); code != want {
		r.t.Errorf("wait reports %d, want %d\nstderr: %q\nlog:\n%s", code, want, tail(r.Stderr.String()), r.daemon.LogTail(r.ID, 30))
	}
	if code := r.Delete(); code != want {
		r.t.Errorf("delete reports %d, want %d", code, want)
	}
	log.Wait(runtime.TaskDeleteEventTopic, runLimit)
	var exits []*events.TaskExit
	for _, e := range log.Events() {
		if r.isExit(e) {
			exits = append(exits, e.Event.(*events.TaskExit))
		}
	}
	if len(exits) != 1 || int(exits[0].ExitStatus) != want {
		r.t.Errorf("the exit events are %v, want one with status %d", exits, want)
	}
}

// isExit reports whether an event is that of the task's end.
func (r *task) isExit(e event) bool {
	exit, ok := e.Event.(*events.TaskExit)
	return ok && exit.ID == r.ID
}

// watch is startTask with the events of the container.
func watch(t *testing.T, image string, opts ...taskOption) (*task, *eventLog) {
	t.Helper()
	id := newID(t)
	log := subscribe(t, id)
	return startTask(t, image, append([]taskOption{withID(id)}, opts...)...), log
}

// endTask deletes the ended task and keeps the container, to be started again.
func (r *task) endTask() int {
	r.t.Helper()
	if !drained(r.Task.IO()) {
		r.t.Errorf("the output was not closed within %v of the exit", drainLimit)
	}
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	status, err := r.Task.Delete(ctx)
	if err != nil {
		r.fatal("delete: %v", err)
	}
	r.Task = nil
	return int(status.ExitCode())
}

// again starts a new task of the same container, with other output buffers.
func (r *task) again(change func(*specs.Process)) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	spec, err := r.Container.Spec(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	change(spec.Process)
	if err := r.Container.Update(ctx, func(_ context.Context, _ *containerd.Client, c *containers.Container) error {
		c.Spec, err = typeurl.MarshalAny(spec)
		return err
	}); err != nil {
		r.t.Fatalf("update the container: %v", err)
	}
	r.Stdout, r.Stderr = &output{}, &output{}
	r.create(cio.NewCreator(cio.WithStreams(nil, r.Stdout, r.Stderr), cio.WithFIFODir(r.daemon.Dir+"/fifo")))
	r.Start()
}

// replace gives a task that was not started other streams.
func (r *task) replace(streams cio.Creator) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if _, err := r.Task.Delete(ctx, containerd.WithProcessKill); err != nil {
		r.fatal("delete: %v", err)
	}
	r.create(streams)
}

// create makes a task of a container that has none.
func (r *task) create(streams cio.Creator) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	var err error
	if r.Task, err = r.Container.NewTask(ctx, streams); err != nil {
		r.fatal("create: %v", err)
	}
	if r.exit, err = r.Task.Wait(r.daemon.context()); err != nil {
		r.fatal("wait: %v", err)
	}
}

// withWritten notes what written finds at this point of the options.
func withWritten(lines *[]string) taskOption {
	return withSpec(func(_ context.Context, _ oci.Client, c *containers.Container, _ *oci.Spec) (err error) {
		*lines, err = writtenTo(c.SnapshotKey)
		return err
	})
}

// written lists everything that was written to a container's root file system: one line for each file, with what it is
// and what it holds. A folder that overlayfs copied because of something in it counts only if it changed.
func (r *task) written() []string {
	r.t.Helper()
	lines, err := writtenTo(r.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return lines
}

func writtenTo(snapshot string) ([]string, error) {
	upper, lower, err := layers(snapshot)
	if err != nil {
		return nil, err
	}
	var lines []string
	err = filepath.WalkDir(upper, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == upper {
			return err
		}
		line, err := describeFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(upper, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if below, err := describeFile(filepath.Join(lower, name)); err == nil && below == line {
				return nil
			}
		}
		lines = append(lines, "/"+name+" "+line)
		return nil
	})
	return lines, err
}

// layers are the two folders on the host that a container's root file system is made of.
func layers(snapshot string) (upper, lower string, err error) {
	ctx, cancel := private.within(callLimit)
	defer cancel()
	mounts, err := private.Client.SnapshotService("").Mounts(ctx, snapshot)
	if err != nil {
		return "", "", err
	}
	for _, m := range mounts {
		for _, option := range m.Options {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				upper = dir
			}
			if dir, ok := strings.CutPrefix(option, "lowerdir="); ok {
				lower = dir
			}
		}
	}
	if upper == "" || lower == "" || strings.Contains(lower, ":") {
		return "", "", fmt.Errorf("the snapshot is %+v, want an overlay of two layers", mounts)
	}
	return upper, lower, nil
}

// describeFile is all of a file but its times.
func describeFile(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch info.Mode().Type() {
	case 0:
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d bytes %.8x", len(content), sha256.Sum256(content))
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += " -> " + target
	case fs.ModeDevice | fs.ModeCharDevice:
		line += fmt.Sprintf(" device %d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	case fs.ModeDir:
		if size, err := unix.Lgetxattr(path, "trusted.overlay.opaque", nil); err == nil && size > 0 {
			line += " opaque"
		}
	}
	return line, nil
}

// listFolder is written for a folder of the host.
func listFolder(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line, err := describeFile(path)
		lines = append(lines, strings.TrimPrefix(path, dir)+" "+line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// sameLines compares two lists that describe the same thing at two times.
func sameLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	before, after := hostState(slices.Sorted(slices.Values(want))), hostState(slices.Sorted(slices.Values(got)))
	if diff := before.diff(after); diff != "" {
		t.Errorf("%s (- before, + after):\n%s", what, diff)
	}
}

// readInside reads a file of a running container through an exec.
func (r *task) readInside(path string) string {
	r.t.Helper()
	got := r.Exec("cat", path)
	if got.Code != 0 {
		r.fatal("cat %s: %+v", path, got)
	}
	return got.Stdout
}

// unread is a pair of fifos that nobody reads until the test does.
type unread struct {
	dir            string
	terminal       bool
	stdout, stderr *os.File
}

func newUnread(t *testing.T, terminal bool) *unread {
	t.Helper()
	u := &unread{dir: t.TempDir(), terminal: terminal}
	for name, f := range map[string]**os.File{"stdout": &u.stdout, "stderr": &u.stderr} {
		path := filepath.Join(u.dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Not in non-blocking mode for os.NewFile, which would wait for more with its poller.
		*f = os.NewFile(uintptr(fd), path)
		t.Cleanup(func() { (*f).Close() })
	}
	return u
}

func (u *unread) create(string) (cio.IO, error) { return u, nil }

// Config is for cio.IO, as are the three below.
func (u *unread) Config() cio.Config {
	config := cio.Config{Stdout: filepath.Join(u.dir, "stdout"), Stderr: filepath.Join(u.dir, "stderr"), Terminal: u.terminal}
	if u.terminal {
		config.Stderr = ""
	}
	return config
}
func (u *unread) Cancel()      {}
func (u *unread) Wait()        {}
func (u *unread) Close() error { return nil }

// now returns what is in a fifo at this moment.
func (u *unread) now(t *testing.T, f *os.File) string {
	t.Helper()
	var all []byte
	part := make([]byte, 1<<16)
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), part)
			if err != nil || n == 0 {
				readErr = err
				return
			}
			all = append(all, part[:n]...)
		}
	})
	if err != nil || readErr != nil && !errors.Is(readErr, unix.EAGAIN) && !errors.Is(readErr, io.EOF) {
		t.Fatal(err, readErr)
	}
	return string(all)
}

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/integration/containerdtest"
)

var (
	// callLimit bounds a call to containerd, so that a hanging shim fails one test and not the run.
	callLimit = patience(60 * time.Second)
	// drainLimit bounds the wait for the end of the output after the exit.
	drainLimit = patience(10 * time.Second)
)

// probePath is where withProbe puts the probe.
const probePath = "/probe"

// task is a container with its task. Whatever happens in the test, nothing of it stays.
type task struct {
	ID        string
	Container containerd.Container
	Task      containerd.Task
	// Stdout and Stderr fill while the task runs; they are complete after Delete.
	Stdout, Stderr *output
	// Stdin is nil without withStdin.
	Stdin io.Writer

	t       testing.TB
	daemon  *daemon
	stdin   *io.PipeWriter
	exit    <-chan containerd.ExitStatus
	execs   atomic.Int32
	deleted bool
}

// output is a buffer that may be read while it is written.
type output struct {
	lock   sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string { return string(o.Bytes()) }

// Bytes returns a copy of what came so far.
func (o *output) Bytes() []byte {
	o.lock.Lock()
	defer o.lock.Unlock()
	return bytes.Clone(o.buffer.Bytes())
}

// taskSettings is what the options of newTask change.
type taskSettings struct {
	id              string
	daemon          *daemon
	args            []string
	spec            []oci.SpecOpts
	runtime         string
	runtimeOptions  any
	stdin, terminal bool
	snapshot        []snapshots.Opt
	streams         cio.Creator // nil for those that fill Stdout and Stderr
}

type taskOption func(*taskSettings)

// withArgs sets the command; without it the image's own is used.
func withArgs(args ...string) taskOption {
	return func(s *taskSettings) { s.args = args }
}

// withRich sets one of our options by its name, for example withRich("on-exit", "keep").
func withRich(option, value string) taskOption {
	return withAnnotation("rich.containerd.io/"+option, value)
}

// withInit names the init.
func withInit(name string) taskOption { return withRich("init", name) }

// withAnnotation sets an annotation of the spec.
func withAnnotation(key, value string) taskOption {
	return withSpec(oci.WithAnnotations(map[string]string{key: value}))
}

// withSpec changes the spec in any other way; later options see what earlier ones did.
func withSpec(opts ...oci.SpecOpts) taskOption {
	return func(s *taskSettings) { s.spec = append(s.spec, opts...) }
}

// withProcess changes the spec's process.
func withProcess(change func(*specs.Process)) taskOption {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		change(spec.Process)
		return nil
	})
}

// withEnv adds variables as NAME=value.
func withEnv(env ...string) taskOption { return withSpec(oci.WithEnv(env)) }

// withBind mounts a file or folder of the host; options default to a read-only bind.
func withBind(source, destination string, options ...string) taskOption {
	if len(options) == 0 {
		options = []string{"rbind", "ro"}
	}
	return withSpec(oci.WithMounts([]specs.Mount{{Type: "bind", Source: source, Destination: destination, Options: options}}))
}

// withProbe makes the probe available as /probe, and runs it as the command if arguments are given.
func withProbe(args ...string) taskOption {
	bind := withBind(buildPath("bin/probe"), probePath)
	return func(s *taskSettings) {
		bind(s)
		if len(args) > 0 {
			s.args = append([]string{probePath}, args...)
		}
	}
}

// withStdin gives the command an open stdin: write to task.Stdin, end it with task.CloseStdin.
func withStdin() taskOption { return func(s *taskSettings) { s.stdin = true } }

// withTerminal gives the command a terminal, whose output comes on Stdout.
func withTerminal() taskOption { return func(s *taskSettings) { s.terminal = true } }

// withID sets the container's name, for tests that depend on it.
func withID(id string) taskOption { return func(s *taskSettings) { s.id = id } }

// withDaemon takes another containerd than the one that all tests share.
func withDaemon(d *daemon) taskOption { return func(s *taskSettings) { s.daemon = d } }

// withRuntimeOptions sets what containerd passes to the runtime as its options.
func withRuntimeOptions(options any) taskOption {
	return func(s *taskSettings) { s.runtimeOptions = options }
}

// newTask creates a container and its task, and does not start it.
func newTask(t testing.TB, image string, opts ...taskOption) *task {
	t.Helper()
	created, err := tryTask(t, image, opts...)
	if err != nil {
		t.Fatalf("create: %v\n%s", err, created.daemon.LogTail(created.ID, 30))
	}
	return created
}

// tryTask is newTask for tests that expect an error of the runtime's create. The task it returns then has no Task.
func tryTask(t testing.TB, image string, opts ...taskOption) (*task, error) {
	t.Helper()
	settings := taskSettings{id: newID(t), daemon: private, runtime: testRuntime}
	for _, opt := range opts {
		opt(&settings)
	}
	created := &task{ID: settings.id, Stdout: &output{}, Stderr: &output{}, t: t, daemon: settings.daemon}
	from := created.daemon.image(t, image)

	spec := []oci.SpecOpts{
		oci.WithDefaultSpec(), oci.WithDefaultUnixDevices,
		oci.WithImageConfig(from),
		oci.WithCgroup(created.daemon.Cgroup() + "/" + settings.id),
	}
	if settings.args != nil {
		spec = append(spec, oci.WithProcessArgs(settings.args...))
	}
	if settings.terminal {
		spec = append(spec, oci.WithTTY)
	}
	container := []containerd.NewContainerOpts{
		containerd.WithImage(from),
		containerd.WithImageStopSignal(from, "SIGTERM"),
		containerd.WithNewSnapshot(settings.id, from, settings.snapshot...),
		containerd.WithRuntime(settings.runtime, settings.runtimeOptions),
		containerd.WithNewSpec(append(spec, settings.spec...)...),
	}
	ctx, cancel := created.daemon.within(callLimit)
	defer cancel()
	var err error
	created.Container, err = created.daemon.Client.NewContainer(ctx, settings.id, container...)
	if err != nil {
		t.Fatalf("new container: %v", err)
	}
	t.Cleanup(created.cleanup)

	var stdin io.Reader
	if settings.stdin {
		var pipe *io.PipeReader
		pipe, created.stdin = io.Pipe()
		stdin, created.Stdin = pipe, created.stdin
	}
	streams := []cio.Opt{
		cio.WithStreams(stdin, created.Stdout, created.Stderr),
		cio.WithFIFODir(created.daemon.Dir + "/fifo"),
	}
	if settings.terminal {
		streams = append(streams, cio.WithTerminal)
	}
	if settings.streams == nil {
		settings.streams = cio.NewCreator(streams...)
	}
	made, err := created.Container.NewTask(ctx, settings.streams)
	if err != nil {
		return created, err
	}
	created.Task = made
	// Without a limit of its own: it lives as long as the task.
	if created.exit, err = made.Wait(created.daemon.context()); err != nil {
		t.Fatalf("wait: %v", err)
	}
	return created, nil
}

// result is what a finished command or exec left.
type result struct {
	Stdout, Stderr string
	Code           int
}

// runTask creates a container, runs its command to the end and deletes all of it.
func runTask(t testing.TB, image string, limit time.Duration, opts ...taskOption) result {
	t.Helper()
	r := newTask(t, image, opts...)
	r.Start()
	code := r.Wait(limit)
	r.Delete()
	return result{Stdout: r.Stdout.String(), Stderr: r.Stderr.String(), Code: code}
}

// startTask creates and starts a container.
func startTask(t testing.TB, image string, opts ...taskOption) *task {
	t.Helper()
	created := newTask(t, image, opts...)
	created.Start()
	return created
}

var idCounter atomic.Int32

// newID makes a container name from the test's, unique on this machine.
func newID(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	name = strings.Trim(name[:min(len(name), 40)], "-")
	return fmt.Sprintf("%s-%d-%s", name, idCounter.Add(1), strings.TrimPrefix(private.RunName(), runGroup+"-"))
}

// fatal fails the test with what the task and the shim said.
func (r *task) fatal(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf(format+"\nstdout: %q\nstderr: %q\nlog:\n%s",
		append(args, tail(r.Stdout.String()), tail(r.Stderr.String()), r.daemon.LogTail(r.ID, 30))...)
}

func tail(text string) string { return text[max(0, len(text)-2000):] }

// Start starts the task.
func (r *task) Start() {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if err := r.Task.Start(ctx); err != nil {
		r.fatal("start: %v", err)
	}
}

// Wait waits for the task's end and returns its exit status.
func (r *task) Wait(limit time.Duration) int {
	r.t.Helper()
	return int(r.WaitStatus(limit).ExitCode())
}

// WaitStatus is Wait with the time of the exit.
func (r *task) WaitStatus(limit time.Duration) containerd.ExitStatus {
	r.t.Helper()
	select {
	case status := <-r.exit:
		if err := status.Error(); err != nil {
			r.fatal("wait: %v", err)
		}
		return status
	case <-time.After(limit):
		r.fatal("the task still runs after %v", limit)
		panic("not reached")
	}
}

// WaitOutput waits until text is in the task's stdout.
func (r *task) WaitOutput(text string, limit time.Duration) {
	r.t.Helper()
	err := poll(limit, func() error {
		if strings.Contains(r.Stdout.String(), text) {
			return nil
		}
		return fmt.Errorf("no %q in the output", text)
	})
	if err != nil {
		r.fatal("%v after %v", err, limit)
	}
}

// Kill sends a signal to the task.
func (r *task) Kill(signal syscall.Signal, opts ...containerd.KillOpts) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if err := r.Task.Kill(ctx, signal, opts...); err != nil {
		r.fatal("kill %v: %v", signal, err)
	}
}

// CloseStdin lets the command see the end of its stdin.
func (r *task) CloseStdin() {
	r.t.Helper()
	r.stdin.Close()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if err := r.Task.CloseIO(ctx, containerd.WithStdinCloser); err != nil {
		r.fatal("close stdin: %v", err)
	}
}

// Delete deletes the ended task and its container, and returns the exit status that delete reports.
// Stdout and Stderr are complete afterwards.
func (r *task) Delete() int {
	r.t.Helper()
	// The client's Delete closes the streams at once, also if something is left in them.
	if !drained(r.Task.IO()) {
		r.t.Errorf("the output was not closed within %v of the exit", drainLimit)
	}
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	status, err := r.Task.Delete(ctx)
	if err != nil {
		r.fatal("delete: %v", err)
	}
	if err := r.Container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		r.fatal("delete the container: %v", err)
	}
	r.deleted = true
	return int(status.ExitCode())
}

// drained waits until all output was read, and tells whether that came to its end.
func drained(streams cio.IO) bool {
	done := make(chan struct{})
	go func() {
		streams.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(drainLimit):
		return false
	}
}

// cleanup removes whatever the test left.
func (r *task) cleanup() {
	if r.deleted {
		return
	}
	if r.t.Failed() {
		r.t.Logf("%s: stdout %q stderr %q\nlog:\n%s", r.ID, tail(r.Stdout.String()), tail(r.Stderr.String()), r.daemon.LogTail(r.ID, 30))
	}
	if r.stdin != nil {
		r.stdin.Close()
	}
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	if r.Task != nil {
		_ = r.Task.Kill(ctx, syscall.SIGKILL)
		if _, err := r.Task.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			r.t.Errorf("cleanup of %s: delete: %v", r.ID, err)
			r.killShim()
		}
	}
	if err := r.Container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		r.t.Errorf("cleanup of %s: delete the container: %v", r.ID, err)
	}
}

// killShim ends every process of a container that cannot be deleted, so that the next test has a clean host.
func (r *task) killShim() {
	processes, err := containerdtest.Processes(r.daemon.Dir)
	if err != nil {
		r.t.Errorf("cleanup of %s: %v", r.ID, err)
	}
	for _, p := range processes {
		cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
		if strings.Contains(p.Text, r.ID) || strings.Contains(string(cgroups), "/"+r.ID) {
			r.t.Logf("killing %v", p)
			_ = syscall.Kill(p.Pid, syscall.SIGKILL)
		}
	}
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	_ = poll(drainLimit, func() error {
		_, err := r.Task.Delete(ctx, containerd.WithProcessKill)
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// Exec runs a program in the container with the command's environment and user.
func (r *task) Exec(args ...string) result {
	r.t.Helper()
	return r.ExecAs(func(*specs.Process) {}, args...)
}

// ExecAs is Exec with changes to the process.
func (r *task) ExecAs(change func(*specs.Process), args ...string) result {
	r.t.Helper()
	done, err := r.TryExec(change, args...)
	if err != nil {
		r.fatal("exec %q: %v", args, err)
	}
	return done
}

// TryExec is ExecAs for tests that expect an error of the runtime.
func (r *task) TryExec(change func(*specs.Process), args ...string) (result, error) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	spec, err := r.Container.Spec(ctx)
	if err != nil {
		return result{}, err
	}
	process := *spec.Process
	process.Args, process.Terminal = args, false
	change(&process)

	var stdout, stderr output
	exec, err := r.Task.Exec(ctx, fmt.Sprintf("exec-%d", r.execs.Add(1)), &process,
		cio.NewCreator(cio.WithStreams(nil, &stdout, &stderr), cio.WithFIFODir(r.daemon.Dir+"/fifo")))
	if err != nil {
		return result{}, err
	}
	defer func() {
		ctx, cancel := r.daemon.within(callLimit)
		defer cancel()
		if _, err := exec.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			r.t.Errorf("delete %s: %v", exec.ID(), err)
		}
	}()
	exit, err := exec.Wait(ctx)
	if err != nil {
		return result{}, err
	}
	if err := exec.Start(ctx); err != nil {
		return result{}, err
	}
	status := <-exit
	if err := status.Error(); err != nil {
		return result{}, err
	}
	if !drained(exec.IO()) {
		return result{}, fmt.Errorf("the output was not closed within %v of the exit", drainLimit)
	}
	return result{Stdout: stdout.String(), Stderr: stderr.String(), Code: int(status.ExitCode())}, nil
}

// probeReport is what the probe prints. A []byte may hold any byte.
type probeReport struct {
	PID         int      `json:"pid"`
	PPID        int      `json:"ppid"`
	PGID        int      `json:"pgid"`
	SID         int      `json:"sid"`
	UID         uint32   `json:"uid"`
	EUID        uint32   `json:"euid"`
	GID         uint32   `json:"gid"`
	EGID        uint32   `json:"egid"`
	Groups      []uint32 `json:"groups"`
	Umask       int      `json:"umask"`
	Nice        int      `json:"nice"`
	IOPrio      int      `json:"ioprio"`
	OOMScoreAdj int      `json:"oom_score_adj"`
	// As /proc/self/status has them: capability sets and signals are hexadecimal.
	CapInheritable string `json:"cap_inheritable"`
	CapPermitted   string `json:"cap_permitted"`
	CapEffective   string `json:"cap_effective"`
	CapBounding    string `json:"cap_bounding"`
	CapAmbient     string `json:"cap_ambient"`
	NoNewPrivs     string `json:"no_new_privs"`
	Seccomp        string `json:"seccomp"`
	SigBlocked     string `json:"sig_blocked"`
	SigIgnored     string `json:"sig_ignored"`

	Rlimits map[string]struct {
		Soft uint64 `json:"soft"`
		Hard uint64 `json:"hard"`
	} `json:"rlimits"`
	Argv       [][]byte          `json:"argv"`
	Environ    [][]byte          `json:"environ"`
	Cwd        []byte            `json:"cwd"`
	Exe        []byte            `json:"exe"`
	Stdio      [3][]byte         `json:"stdio"`
	FDs        map[string][]byte `json:"fds"`
	Namespaces map[string][]byte `json:"namespaces"`
	Cgroup     []byte            `json:"cgroup"`
}

// parseReport reads what the probe printed.
func parseReport(t testing.TB, text string) probeReport {
	t.Helper()
	var report probeReport
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("not a report: %v\n%q", err, text)
	}
	return report
}

// Env returns the value of a variable, and whether it is there at all; of duplicates the last one.
func (p probeReport) Env(name string) (value string, found bool) {
	for _, entry := range p.Environ {
		if rest, ok := strings.CutPrefix(string(entry), name+"="); ok {
			value, found = rest, true
		}
	}
	return value, found
}

// Args returns argv as strings.
func (p probeReport) Args() []string {
	args := make([]string, len(p.Argv))
	for i, arg := range p.Argv {
		args[i] = string(arg)
	}
	return args
}

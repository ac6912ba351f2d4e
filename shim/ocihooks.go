package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/child"

	"containerd-shim-rich/bundle"
)

const (
	// hookTimeout bounds a hook that sets no timeout of its own.
	hookTimeout = 30 * time.Second
	// hookLinger is how long after its end a hook's output is waited for: a
	// process that it left may hold it open.
	hookLinger = time.Second
	// hookTail is how much of what a hook writes is told, in bytes of its end.
	hookTail = 2 << 10
	// maxState bounds what the hook command reads on its stdin, in bytes.
	maxState = 10 << 20
)

// hookCommand is the argument with which this program runs a hook.
const hookCommand = "hook"

// unsetHooks are the hooks of a bundle's config.json that libcontainer does
// not run: it would start those of poststart before the container is started
// (runtime-spec, Lifecycle), and skip those of poststop behind one that fails.
type unsetHooks struct {
	poststart, poststop []specs.Hook
}

// setHooks prepares the hooks of a container. Those that libcontainer runs
// on the host are run through this program, as libcontainer itself waits for
// everything that holds a hook's output open, whatever the timeout.
func setHooks(cfg *configs.Config, hooks *specs.Hooks) (unsetHooks, error) {
	cfg.Hooks = configs.Hooks{}
	if hooks == nil {
		return unsetHooks{}, nil
	}
	for _, phase := range []struct {
		name  configs.HookName
		hooks []specs.Hook
	}{
		{configs.Prestart, hooks.Prestart}, //nolint:staticcheck // deprecated, and still what many use
		{configs.CreateRuntime, hooks.CreateRuntime},
		{configs.CreateContainer, hooks.CreateContainer},
		{configs.StartContainer, hooks.StartContainer},
		{configs.Poststart, hooks.Poststart},
		{configs.Poststop, hooks.Poststop},
	} {
		for i, h := range phase.hooks {
			if err := checkHook(phase.name, i, h); err != nil {
				return unsetHooks{}, err
			}
			switch phase.name {
			case configs.Poststart, configs.Poststop:
			case configs.StartContainer:
				// In the container there is nothing but the hook itself.
				timeout := timeoutOf(h)
				cfg.Hooks[phase.name] = append(cfg.Hooks[phase.name],
					configs.NewCommandHook(&configs.Command{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: &timeout}))
			default:
				cfg.Hooks[phase.name] = append(cfg.Hooks[phase.name], configs.NewCommandHook(throughShim(phase.name, i, h)))
			}
		}
	}
	return unsetHooks{poststart: hooks.Poststart, poststop: hooks.Poststop}, nil
}

func checkHook(phase configs.HookName, i int, h specs.Hook) error {
	field := fmt.Sprintf("hooks.%s[%d]", phase, i)
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("%s.path: value %q: want an absolute path: %w", field, h.Path, errdefs.ErrInvalidArgument)
	}
	if h.Timeout != nil && *h.Timeout <= 0 {
		return fmt.Errorf("%s.timeout: value %d: want at least 1 second, or none: %w", field, *h.Timeout, errdefs.ErrInvalidArgument)
	}
	return nil
}

func timeoutOf(h specs.Hook) time.Duration {
	if h.Timeout == nil {
		return hookTimeout
	}
	return time.Duration(*h.Timeout) * time.Second
}

func hookLabel(phase configs.HookName, i int, path string) string {
	return fmt.Sprintf("%s hook #%d %s", phase, i, path)
}

// throughShim is the command with which this program runs a hook.
func throughShim(phase configs.HookName, i int, h specs.Hook) *configs.Command {
	env := h.Env
	if len(env) == 0 {
		// Never left to libcontainer: a createContainer hook, which is a
		// program of the host, would get the container's environment.
		env = child.HostEnviron()
	}
	args := []string{os.Args[0], hookCommand, hookLabel(phase, i, h.Path), timeoutOf(h).String(), h.Path}
	return &configs.Command{Path: "/proc/self/exe", Args: append(args, hookArgs(h)...), Env: env}
}

func hookArgs(h specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// RunHook runs an OCI hook for libcontainer if args ask for that, and
// returns whether they do and the exit status. The state comes from stdin.
func RunHook(args []string) (bool, int) {
	if len(args) < 5 || args[0] != hookCommand {
		return false, 0
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follow(os.Getppid(), cancel)
	err := func() error {
		// The init of a container passes its connections to the shim on, and
		// what the hook leaves would keep them open.
		if err := utils.CloseExecFrom(3); err != nil {
			return err
		}
		timeout, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		state, err := io.ReadAll(io.LimitReader(os.Stdin, maxState))
		if err != nil {
			return err
		}
		var s specs.State
		if json.Unmarshal(state, &s) == nil && s.Status == specs.StateCreating {
			follow(s.Pid, cancel) // a Create that is given up kills it
		}
		return runHook(ctx, args[1], specs.Hook{Path: args[3], Args: args[4:]}, timeout, state)
	}()
	if err != nil {
		fmt.Fprint(os.Stderr, err) // libcontainer quotes it
		return true, 1
	}
	return true, 0
}

// follow calls gone when a process is gone that a hook is for: the one that
// started it, or the pid 1 of a container that is being created. A parent death
// signal would not do: it follows the thread, and libcontainer has threads that
// end.
func follow(pid int, gone func()) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		gone()
	}
	if err != nil {
		return // the timeout still holds
	}
	go func() {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				gone()
				return
			}
		}
	}()
}

// runHook runs a program of the host to its end or its timeout.
func runHook(ctx context.Context, label string, h specs.Hook, timeout time.Duration, state []byte) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var s specs.State
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("%s: state: %w", label, err)
	}
	var stderr tail
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Dir = hookArgs(h), h.Env, s.Bundle
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), io.Discard, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = hookLinger
	// The parent death signal follows the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not done within %v", timeout)
	case ctx.Err() != nil:
		err = fmt.Errorf("given up: %w", ctx.Err())
	default:
		err = explain(err, h.Path)
	}
	if said := stderr.String(); said != "" {
		return fmt.Errorf("%s: %w: %s", label, err, said)
	}
	return fmt.Errorf("%s: %w", label, err)
}

// explain adds to the errors of execve(2) that say too little.
func explain(err error, path string) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w: a script has to begin with #! and its interpreter", err)
	case errors.Is(err, unix.ENOENT):
		if _, statErr := os.Stat(path); statErr == nil {
			return fmt.Errorf("%w: the file is there, but not the interpreter that it names (a carriage return at the end of its first line counts)", err)
		}
	}
	return err
}

// tail keeps the last bytes of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if more := len(t.data) - hookTail; more > 0 {
		t.data = append(t.data[:0], t.data[more:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.data)) }

// runPoststart runs the hooks that come between the start of pid 1 and the
// answer to Start.
func (c *container) runPoststart(ctx context.Context) error {
	state := c.made.State
	state.Status, state.Pid = specs.StateRunning, c.init.pid
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, h := range c.poststart {
		if err := runHook(ctx, hookLabel(configs.Poststart, i, h.Path), h, timeoutOf(h), input); err != nil {
			return err
		}
	}
	return nil
}

// runPoststop runs the hooks for the end of a container, each of them
// whatever becomes of the others, and none a second time. A limit other than
// 0 bounds them all together.
func runPoststop(b bundle.Bundle, m *bundle.Made, limit time.Duration) error {
	if len(m.Poststop) == 0 {
		return nil
	}
	hooks := m.Poststop
	m.Poststop = nil
	// Before they run: who comes after a crash must not repeat them. Without
	// the directory somebody else has cleaned up, and run them.
	errs := []error{b.Store(bundle.MadeFile, m)}
	if errors.Is(errs[0], os.ErrNotExist) {
		return errs[0]
	}
	state := m.State
	state.Status, state.Pid = specs.StateStopped, 0
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	for i, h := range hooks {
		timeout := timeoutOf(h)
		if limit != 0 {
			// One that hangs leaves the others their share.
			timeout = min(timeout, time.Until(deadline)/time.Duration(len(hooks)-i))
		}
		errs = append(errs, runHook(context.Background(), hookLabel(configs.Poststop, i, h.Path), h, timeout, input))
	}
	return errors.Join(errs...)
}

// stateOf is the part of a container's state that does not change
// (runtime-spec, State).
func stateOf(id string, b bundle.Bundle, spec *specs.Spec) specs.State {
	return specs.State{Version: specs.Version, ID: id, Bundle: string(b), Annotations: spec.Annotations}
}

package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RunCommand runs an OCI hook for libcontainer if args ask for that, and
// returns whether they do and the exit status. The state comes from stdin.
func RunCommand(args []string) (bool, int) {
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
	if more := len(t.data) - tailSize; more > 0 {
		t.data = append(t.data[:0], t.data[more:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.data)) }

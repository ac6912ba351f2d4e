package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/child"
	"containerd-shim-rich/stdio"
)

// maxDrain bounds what is still read after a hook's end, in bytes: what it
// left behind may write for ever.
const maxDrain = 1 << 20

// killWait bounds how long a hook may take to die of SIGKILL.
const killWait = 2 * time.Second

// pipeTail keeps the end of what a hook writes to a pipe. A process that holds
// the pipe longer than the hook lives is not waited for.
type pipeTail struct {
	reader, writer *os.File
	text           tail
	done           chan struct{}
}

func newPipeTail() (*pipeTail, error) {
	r, w, err := stdio.Pipe()
	if err != nil {
		return nil, err
	}
	reader, err := stdio.Pollable(r)
	if err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	t := &pipeTail{reader: reader, writer: w, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		_, _ = io.Copy(&t.text, t.reader) // until its end, or a deadline
	}()
	return t, nil
}

// close ends the pipe and returns the end of all that was written before.
func (t *pipeTail) close() string {
	t.writer.Close()
	_ = t.reader.SetReadDeadline(time.Now())
	<-t.done
	if raw, err := t.reader.SyscallConn(); err == nil {
		stdio.Drain(raw, make([]byte, tailSize), maxDrain, func(p []byte) { _, _ = t.text.Write(p) }) // it never fails
	}
	t.reader.Close()
	return t.text.String()
}

// outcome is how a hook ended.
type outcome struct {
	started        bool // a process was started for it
	stuck          bool // its start has not returned yet
	stdout, stderr string
	err            error // nil if it succeeded
	status         syscall.WaitStatus
}

// runBounded starts a process of a container and follows it to its end, or kills
// its process group when ctx ends or the timeout is over, which includes the
// start: processes of the container can stop what becomes the hook. start
// starts it through the children until then, and leaves nothing of it if it
// fails.
func (s *Set) runBounded(ctx context.Context, timeout time.Duration, proc *libcontainer.Process, start func(context.Context) error) (end outcome) {
	stdout, err := newPipeTail()
	if err != nil {
		return outcome{err: err}
	}
	stderr, err := newPipeTail()
	if err != nil {
		stdout.close()
		return outcome{err: err}
	}
	defer func() { end.stdout, end.stderr = stdout.close(), stderr.close() }()
	proc.Stdout, proc.Stderr = stdout.writer, stderr.writer
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it had not ended after %v and was killed", timeout))
	defer cancel()
	run := &process{children: s.children, proc: proc, started: make(chan error, 1), ended: make(chan syscall.WaitStatus, 1)}
	go run.follow(ctx, start)
	var late <-chan time.Time
	done, starts := ctx.Done(), run.started
	for {
		select {
		case err := <-starts:
			if err != nil {
				if end.err = context.Cause(ctx); end.err == nil {
					end.err = err
				}
				return end
			}
			end.started, starts = true, nil
		case end.status = <-run.ended:
			end.started = true
			if end.err == nil {
				end.err = statusError(end.status)
			}
			return end
		case <-done:
			done = nil
			end.err = context.Cause(ctx)
			late = time.After(killWait)
		case <-late:
			end.stuck = !end.started
			end.err = fmt.Errorf("%w; it does not die", end.err)
			return end
		}
	}
}

// process is the process of a hook from its start to its end.
type process struct {
	children *child.Children
	proc     *libcontainer.Process
	started  chan error
	ended    chan syscall.WaitStatus
}

// follow starts the process and waits for its end, or kills it when ctx ends: one
// that is still being started is killed by who starts it.
func (p *process) follow(ctx context.Context, start func(context.Context) error) {
	err := start(ctx)
	pid := 0
	if err == nil {
		pid, err = p.proc.Pid()
	}
	p.started <- err
	if err != nil {
		return
	}
	kill := func() {
		// The process leads a session of its own, and so a group.
		_ = unix.Kill(-pid, unix.SIGKILL)
		_ = p.proc.Signal(unix.SIGKILL)
	}
	ended := make(chan bool, 1)
	go func() { ended <- child.AwaitEnd(pid) }()
	select {
	case seen := <-ended:
		if !seen { // the kernel does not offer that
			defer context.AfterFunc(ctx, kill)()
		}
	case <-ctx.Done():
		kill() // nobody has waited for it, so the number is its own
	}
	state, err := p.children.Wait(p.proc)
	p.ended <- child.StatusOf(state, err)
}

// statusError says how a process failed.
func statusError(ws syscall.WaitStatus) error {
	switch {
	case ws.Signaled():
		return fmt.Errorf("killed by %s", unix.SignalName(ws.Signal()))
	case ws.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return nil
}

// hookError names a hook, what went wrong and the end of what it printed on
// stderr, in one line.
func hookError(stage, path string, err error, stderr string) error {
	if stderr == "" {
		return fmt.Errorf("%s hook %s: %w", stage, path, err)
	}
	return fmt.Errorf("%s hook %s: %w; its stderr: %q", stage, path, err, stderr)
}

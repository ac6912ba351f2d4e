package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/child"
	"containerd-shim-rich/stdio"
)

// process is pid 1 of a container, or what is executed beside it.
type process struct {
	id      string // empty for pid 1
	streams stdio.Names
	spec    *specs.Process
	proc    *libcontainer.Process
	done    chan struct{} // closed when the end has been announced
	ending  sync.Once

	// verb has the item of who changes the state: the start, and for an exec a
	// signal and the removal. given ends when its start has to be given up.
	verb   chan struct{}
	given  context.Context
	giveUp context.CancelCauseFunc

	mu     sync.Mutex
	io     *stdio.Streams // nil until the process is being started
	size   winsize        // what its terminal is to have then
	state  tasktypes.Status
	pid    int
	status uint32
	at     time.Time // of the end
}

// newProcess is a process that has not been started.
func newProcess(id string, streams stdio.Names, spec *specs.Process) *process {
	p := &process{
		id: id, streams: streams, spec: spec,
		state: tasktypes.Status_CREATED,
		done:  make(chan struct{}),
		verb:  make(chan struct{}, 1),
	}
	p.given, p.giveUp = context.WithCancelCause(context.Background())
	return p
}

// open connects the streams of a process that is about to be started by the
// root of a container, which on the host is uid and gid.
func (p *process) open(ctx context.Context, info stdio.Owner, uid, gid int) error {
	// What an exec leaves behind must not keep the client of the exec.
	io, err := stdio.Open(ctx, p.streams, info, p.id != "")
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.io = io
	err = io.Resize(p.size.rows, p.size.cols)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if uid != 0 || gid != 0 {
		return io.Chown(uid, gid)
	}
	return nil
}

// verbTimeout bounds the wait for a start that the container holds up, for
// clients that set no deadline.
const verbTimeout = 10 * time.Second

// take takes the turn for a verb until leave, and gives up a start that has it
// if the verb is to end the process.
func (p *process) take(ctx context.Context, ends bool) error {
	select {
	case p.verb <- struct{}{}:
		return nil
	default:
	}
	if ends {
		p.giveUp(errors.New("the process was to end before it had started"))
	}
	select {
	case p.verb <- struct{}{}:
		return nil
	case <-ctx.Done():
	case <-time.After(verbTimeout):
	}
	return fmt.Errorf("exec %s is still being started: %w", p.id, errdefs.ErrUnavailable)
}

// wait takes the turn when whoever has it is ready, until ctx ends.
func (p *process) wait(ctx context.Context) error {
	select {
	case p.verb <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another request, or the end of the task: %w", ctx.Err())
	}
}

// closeStreams closes the streams, if there are any yet.
func (p *process) closeStreams() {
	if streams := p.stdio(); streams != nil {
		streams.Close()
	}
}

// leave gives the turn to others.
func (p *process) leave() { <-p.verb }

// stdio returns the streams, or nil if the process has never been started.
func (p *process) stdio() *stdio.Streams {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.io
}

func (p *process) started(pid int, state tasktypes.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid, p.state = pid, state
}

func (p *process) exited(status uint32, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.status, p.at = tasktypes.Status_STOPPED, status, at
}

// statusUnknown is what containerd's clients take for no status at all.
const statusUnknown = 255

// never ends a process that could not be started, for those who wait for it.
func (p *process) never() {
	p.exited(statusUnknown, time.Now())
	p.end()
}

// end lets go of those who wait for the process.
func (p *process) end() { p.ending.Do(func() { close(p.done) }) }

func (p *process) current() tasktypes.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// need fails unless the process is in one of the states.
func (p *process) need(verb string, states ...tasktypes.Status) error {
	now := p.current()
	for _, s := range states {
		if s == now {
			return nil
		}
	}
	var class error = errdefs.ErrFailedPrecondition
	if now == tasktypes.Status_STOPPED && verb != "start" {
		class = errdefs.ErrNotFound // containerd's clients take it as "already finished"
	}
	return fmt.Errorf("cannot %s: the process is %s: %w", verb, now, class)
}

// checkProcess rejects what libcontainer takes but cannot run.
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return fmt.Errorf("process: missing: %w", errdefs.ErrInvalidArgument)
	case p.Cwd == "" || p.Cwd[0] != '/':
		return fmt.Errorf("process.cwd: value %q: want an absolute path: %w", p.Cwd, errdefs.ErrInvalidArgument)
	case len(p.Args) == 0:
		return fmt.Errorf("process.args: empty; give a command: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// run starts a process within a container with its streams.
func (p *process) run(ctx context.Context, children *child.Children, lc *libcontainer.Container) (err error) {
	var console *stdio.ConsoleSocket
	if p.io.HasTerminal() {
		if console, err = stdio.NewConsoleSocket(); err != nil {
			return err
		}
		defer console.Close()
		p.proc.ConsoleSocket = console.Theirs
		// libcontainer makes the terminal with the size that is kept: set after
		// the start, it would come too late for what looks at it once.
		if rows, cols := p.io.Size(); rows != 0 || cols != 0 {
			p.proc.ConsoleHeight, p.proc.ConsoleWidth = rows, cols
		}
	} else {
		p.connect()
	}
	if err := children.Start(ctx, lc, p.proc); err != nil {
		return err
	}
	if console != nil {
		master, err := console.Receive()
		if err != nil {
			return err
		}
		return p.io.StartTerminal(master)
	}
	p.io.Release()
	return nil
}

// connect gives the process its ends. An interface that holds a nil file is
// not nil, and exec.Cmd would not open /dev/null for it.
func (p *process) connect() {
	files := p.io.Ends()
	if f := files[0]; f != nil {
		p.proc.Stdin = f
	}
	for _, s := range []struct {
		to *io.Writer
		n  int
	}{{&p.proc.Stdout, 1}, {&p.proc.Stderr, 2}} {
		if f := files[s.n]; f != nil {
			*s.to = f
		}
	}
}

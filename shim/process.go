package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"containerd-shim-rich/initmode"
)

// process is pid 1 of a container, or what is executed beside it.
type process struct {
	id      string // empty for pid 1
	streams streams
	spec    *specs.Process
	proc    *libcontainer.Process
	done    chan struct{} // closed when the end has been announced
	ending  sync.Once

	// verb has the item of who changes the state of an exec: its start, a
	// signal, its removal. given ends when its start has to be given up.
	verb   chan struct{}
	given  context.Context
	giveUp context.CancelCauseFunc

	mu     sync.Mutex
	io     *stdio  // nil until the process is being started
	size   winsize // what its terminal is to have then
	state  tasktypes.Status
	pid    int
	status uint32
	at     time.Time // of the end
}

// open connects the streams of a process that is about to be started by the
// root of a container, which on the host is uid and gid.
func (p *process) open(ctx context.Context, info loggerInfo, uid, gid int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, fmt.Errorf("not within %v: %w", openLimit, context.DeadlineExceeded))
	defer cancel()
	// What an exec leaves behind must not keep the client of the exec.
	io, err := openStdio(ctx, p.streams, info, p.id != "")
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.io = io
	if io.tty != nil {
		io.tty.rows, io.tty.cols = p.size.rows, p.size.cols
	}
	p.mu.Unlock()
	if uid != 0 || gid != 0 {
		return io.chown(uid, gid)
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

// leave gives the turn to others.
func (p *process) leave() { <-p.verb }

// stdio returns the streams, or nil if the process has never been started.
func (p *process) stdio() *stdio {
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

// newLibcontainerProcess translates a process of the runtime-spec.
func newLibcontainerProcess(spec *specs.Process) (*libcontainer.Process, error) {
	p := &libcontainer.Process{
		Args:            spec.Args,
		Env:             spec.Env,
		UID:             int(spec.User.UID),
		GID:             int(spec.User.GID),
		Cwd:             spec.Cwd,
		Label:           spec.SelinuxLabel,
		NoNewPrivileges: &spec.NoNewPrivileges,
		AppArmorProfile: spec.ApparmorProfile,
		Scheduler:       spec.Scheduler,
		IOPriority:      spec.IOPriority,
		LogLevel:        strconv.Itoa(int(logrus.GetLevel())),
	}
	if size := spec.ConsoleSize; size != nil {
		p.ConsoleWidth = uint16(min(size.Width, math.MaxUint16))
		p.ConsoleHeight = uint16(min(size.Height, math.MaxUint16))
	}
	if c := spec.Capabilities; c != nil {
		p.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted,
			Inheritable: c.Inheritable, Ambient: c.Ambient,
		}
	}
	for _, gid := range spec.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, int(gid))
	}
	for _, l := range spec.Rlimits {
		resource, err := initmode.RlimitResource(l.Type)
		if err != nil {
			return nil, err
		}
		p.Rlimits = append(p.Rlimits, configs.Rlimit{Type: resource, Soft: l.Soft, Hard: l.Hard})
	}
	p.Rlimits = withMemlock(p.Rlimits)
	var err error
	p.CPUAffinity, err = configs.ConvertCPUAffinity(spec.ExecCPUAffinity)
	return p, err
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
func (p *process) run(ctx context.Context, children *children, lc *libcontainer.Container) (err error) {
	var console *consoleSocket
	if p.io.tty != nil {
		if console, err = newConsoleSocket(); err != nil {
			return err
		}
		defer console.close()
		p.proc.ConsoleSocket = console.theirs
		p.io.tty.announce(p.proc)
	} else {
		p.connect()
	}
	if err := children.start(ctx, lc, p.proc); err != nil {
		return err
	}
	if console != nil {
		master, err := console.receive()
		if err != nil {
			return err
		}
		return p.io.tty.start(master)
	}
	p.io.release()
	return nil
}

// connect gives the process its ends. An interface that holds a nil file is
// not nil, and exec.Cmd would not open /dev/null for it.
func (p *process) connect() {
	if f := p.io.files[0]; f != nil {
		p.proc.Stdin = f
	}
	for _, s := range []struct {
		to *io.Writer
		n  int
	}{{&p.proc.Stdout, 1}, {&p.proc.Stderr, 2}} {
		if f := p.io.files[s.n]; f != nil {
			*s.to = f
		}
	}
}

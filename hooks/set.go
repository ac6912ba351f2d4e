package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/child"
	"containerd-shim-rich/config"
)

// notExecuted is how libcontainer's process ends that could not become the
// program it is for. The program itself may end like that as well.
const notExecuted = 255

// ErrCalledOff says that prestart hooks were not waited for, as the container is
// to stop.
var ErrCalledOff = errors.New("the container is stopping")

// Set are the hooks of a container that run in it, or when it is gone in a
// container of their own.
type Set struct {
	id       string
	bundle   bundle.Bundle
	children *child.Children
	log      *log.Entry
	spec     *specs.Spec // as the bundle's maker wrote it

	// calledOff ends when no prestart hook is waited for any more.
	calledOff context.Context
	callOff   context.CancelFunc
	prepare   sync.Once // the prestart hooks
	prepared  error     // how they ended

	mu      sync.Mutex
	record  record
	cancel  context.CancelFunc // ends the poststop hook that runs
	active  bool               // poststop hooks run
	aborted bool               // and are not to run any more

	// namespaces of the container are kept for the poststop hooks.
	namespaces map[specs.LinuxNamespaceType]*os.File
}

// Owner is the container of a Set.
type Owner struct {
	ID       string
	Bundle   bundle.Bundle
	Children *child.Children
	Log      *log.Entry
	Spec     *specs.Spec // as the bundle's maker wrote it
	Handler  Handler
	// HostPoststop says that hooks of the host are to be told the ending.
	HostPoststop bool
}

// New takes the hooks from the options.
func New(of Owner, o config.Options) (*Set, error) {
	s := None(of)
	prestart, poststop, err := permitted(o, of.Spec.Process.User)
	if err != nil {
		return nil, err
	}
	limit := func(list []config.Hook) []config.Hook {
		list = slices.Clone(list)
		for i := range list {
			if list[i].Timeout == 0 {
				list[i].Timeout = o.HookTimeout
			}
		}
		return list
	}
	s.record = record{Prestart: limit(prestart), Poststop: limit(poststop), Handler: of.Handler, Host: of.HostPoststop}
	return s, nil
}

// None is a Set without hooks.
func None(of Owner) *Set {
	s := &Set{id: of.ID, bundle: of.Bundle, children: of.Children, log: of.Log, spec: of.Spec}
	s.calledOff, s.callOff = context.WithCancel(context.Background())
	return s
}

// Forget drops what only hooks in a container need, if there are none.
func (s *Set) Forget() {
	if len(s.record.Prestart) == 0 && len(s.record.Poststop) == 0 {
		s.spec = nil
	}
}

// CallOff says that no prestart hook is waited for any more.
func (s *Set) CallOff() { s.callOff() }

// Runner runs one hook of an option. started says that a process was started for
// it.
type Runner func(ctx context.Context, hook config.Hook, option string) (started bool, err error)

// Inside runs hooks in the running container: start starts a process in it, and
// pid1 sees its files.
func (s *Set) Inside(start func(context.Context, *libcontainer.Process) error, pid1 child.Proc) Runner {
	return func(ctx context.Context, hook config.Hook, option string) (bool, error) {
		proc, err := child.NewProcess(s.process(hook, option))
		if err != nil {
			return false, err
		}
		end := s.runBounded(ctx, hook.Timeout, proc, func(ctx context.Context) error { return start(ctx, proc) })
		return end.started, s.report(hook, option, end, func() error { return inspectProgram(pid1, hook.Path) })
	}
}

// Prestart runs the prestart hooks, once, and returns what keeps the command from
// being started: ErrCalledOff, or how a hook failed.
func (s *Set) Prestart(run Runner) error {
	s.prepare.Do(func() { s.prepared = s.tryPrestart(run) })
	return s.prepared
}

// EndPrestart waits for the prestart hooks that run, none of which is waited for
// any more, and lets none begin.
func (s *Set) EndPrestart() {
	s.callOff()
	s.prepare.Do(func() { s.prepared = ErrCalledOff })
}

func (s *Set) tryPrestart(run Runner) error {
	if len(s.record.Prestart) == 0 {
		return nil
	}
	if err := s.due(); err != nil {
		return fmt.Errorf("prestart hooks: %w", err)
	}
	for _, hook := range s.record.Prestart {
		if s.calledOff.Err() != nil {
			return ErrCalledOff
		}
		_, err := run(s.calledOff, hook, Prestart)
		switch {
		case s.calledOff.Err() != nil:
			return ErrCalledOff
		case err != nil:
			return err
		}
	}
	return nil
}

// due notes that the poststop hooks are to run.
func (s *Set) due() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.Due = true
	return s.store()
}

// Starting notes that the command is about to be started.
func (s *Set) Starting(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.record.Started.IsZero() {
		return
	}
	s.record.Started, s.record.Due = now, true
	s.noted(s.store())
}

// noted tells that the record could not be stored.
func (s *Set) noted(err error) {
	if err != nil {
		s.log.WithError(err).Warn("store what the hooks need")
	}
}

// report logs how a hook ended, and says why if it failed.
func (s *Set) report(hook config.Hook, option string, end outcome, inspect func() error) error {
	if end.err != nil && !end.stuck && (!end.started || end.status.Exited() && end.status.ExitStatus() == notExecuted) {
		if fault := inspect(); fault != nil {
			end.err = fault
		}
	}
	entry := s.log.WithFields(log.Fields{"hook": hook.Path, "option": option})
	if end.stdout != "" {
		entry = entry.WithField("stdout", end.stdout)
	}
	if end.err != nil {
		err := hookError(option, hook.Path, end.err, end.stderr)
		entry.WithError(err).Warn("hook failed")
		return err
	}
	if end.stderr != "" {
		entry = entry.WithField("stderr", end.stderr)
	}
	entry.Info("hook ended")
	return nil
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"

	"containerd-shim-rich/child"

	"containerd-shim-rich/cgroup"

	"containerd-shim-rich/bundle"
)

// notExecuted is how libcontainer's process ends that could not become the
// program it is for. The program itself may end like that as well.
const notExecuted = 255

// hooksFile keeps a container's hookRecord.
const hooksFile = "hooks.json"

// hookRecord is what has to be known about the hooks of a container without
// its shim. It is stored before anything that it says happens, so that no
// hook runs twice.
type hookRecord struct {
	Version bundle.Format `json:"version"`
	// Prestart are the hooks before the CMD, Poststop those after it.
	Prestart []config.Hook `json:"prestart,omitempty"`
	Poststop []config.Hook `json:"poststop,omitempty"`
	// Due says that a prestart hook or the CMD has been started, so that
	// the poststop hooks are to run; Next is the first that has not begun.
	Due  bool `json:"due,omitempty"`
	Next int  `json:"next,omitempty"`
	// Started is when the CMD was started first, and Ending how it ended.
	Started time.Time     `json:"started,omitzero"`
	Ending  *hooks.Ending `json:"ending,omitempty"`
	// SystemdCgroup, NoPivotRoot and NoNewKeyring are the handler's options.
	SystemdCgroup bool `json:"systemdCgroup,omitempty"`
	NoPivotRoot   bool `json:"noPivotRoot,omitempty"`
	NoNewKeyring  bool `json:"noNewKeyring,omitempty"`
	// Host says that hooks of the host are to be told the ending.
	Host bool `json:"host,omitempty"`
}

// errStopped says that the CMD is not to be started any more.
var errStopped = errors.New("the container is stopping")

// hookSet runs the hooks of a container.
type hookSet struct {
	id       string
	bundle   bundle.Bundle
	children *child.Children
	log      *log.Entry
	spec     *specs.Spec // as the bundle's maker wrote it

	// prestart ends when the container is to stop.
	prestart context.Context
	stop     context.CancelFunc
	prepare  sync.Once // the prestart hooks
	prepared error     // how they ended

	running sync.Mutex // held while poststop hooks run
	mu      sync.Mutex
	record  hookRecord
	cancel  context.CancelFunc // ends the poststop hook that runs
	begun   bool               // a poststop hook has begun
	active  bool               // poststop hooks run
	aborted bool               // SIGKILL was sent while they ran
	failed  bool               // a prestart hook failed
	asked   bool               // the task was asked to stop
	unstart bool               // pid 1 could not be let go

	// namespaces of the container are kept for the poststop hooks.
	namespaces map[specs.LinuxNamespaceType]*os.File
}

// addHooks takes the hooks from the options and the spec.
func (c *container) addHooks(original *specs.Spec, handler handlerOptions) error {
	h := &hookSet{id: c.id, bundle: c.bundle, children: c.children, log: c.log, spec: original}
	h.prestart, h.stop = context.WithCancel(context.Background())
	c.hooks = h
	if initmode.IsSandbox(original.Annotations) {
		return nil // the pause container of a pod has the pod's annotations
	}
	limit := func(list []config.Hook) []config.Hook {
		list = slices.Clone(list)
		for i := range list {
			if list[i].Timeout == 0 {
				list[i].Timeout = c.options.HookTimeout
			}
		}
		return list
	}
	prestart, poststop, err := permitted(c.options, original.Process.User)
	if err != nil {
		return withClass(err, errdefs.ErrInvalidArgument)
	}
	h.record = hookRecord{
		Prestart: limit(prestart), Poststop: limit(poststop),
		SystemdCgroup: cgroup.ThroughSystemd(handler.systemdCgroup, original), NoPivotRoot: handler.noPivotRoot, NoNewKeyring: handler.noNewKeyring,
	}
	if c.spec.Hooks, err = ociHooks(original, c.options.HostHooks, c.options.HookTimeout); err != nil {
		return err
	}
	h.record.Host = len(c.spec.Hooks.Poststop) > 0
	return nil
}

// forget drops what only hooks in the container need, if there are none.
func (h *hookSet) forget() {
	if len(h.record.Prestart) == 0 && len(h.record.Poststop) == 0 {
		h.spec = nil
	}
}

// store writes the record down if it matters to anybody.
func (h *hookSet) store() error {
	r := &h.record
	if len(r.Prestart) == 0 && len(r.Poststop) == 0 && !r.Host {
		return nil
	}
	return h.bundle.Store(hooksFile, r)
}

// runPrestart runs the prestart hooks, once, and returns what keeps the CMD
// from being started.
func (c *container) runPrestart() error {
	h := c.hooks
	h.prepare.Do(func() { h.prepared = c.tryPrestart() })
	return h.prepared
}

func (c *container) tryPrestart() error {
	h := c.hooks
	if len(h.record.Prestart) == 0 {
		return nil
	}
	if err := h.due(); err != nil {
		return fmt.Errorf("prestart hooks: %w", err)
	}
	for _, hook := range h.record.Prestart {
		if h.prestart.Err() != nil {
			return errStopped
		}
		_, err := c.runInside(h.prestart, hook, hooks.Prestart)
		switch {
		case h.prestart.Err() != nil:
			return errStopped
		case err != nil:
			h.mu.Lock()
			h.failed = true
			h.mu.Unlock()
			return err
		}
	}
	return nil
}

// due notes that the poststop hooks are to run.
func (h *hookSet) due() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record.Due = true
	return h.store()
}

// starting notes that the CMD is about to be started.
func (h *hookSet) starting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.record.Started.IsZero() {
		return
	}
	h.record.Started = time.Now()
	h.record.Due = true
	if err := h.store(); err != nil {
		h.log.WithError(err).Warn("store what the hooks need")
	}
}

// notStarted notes that pid 1 could not be let go.
func (h *hookSet) notStarted() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unstart = true
}

func (h *hookSet) prestartFailed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// prestartService is called before the CMD is given to an init's launcher. A
// failed hook ends the container: the init is halted.
func (c *container) prestartService() error {
	err := c.runPrestart()
	if err == nil || errors.Is(err, errStopped) {
		return err
	}
	c.app.mu.Lock()
	first := c.app.result == nil
	if first {
		c.app.result, c.app.own = &launch.Exited{Status: statusNotStarted}, true
	}
	c.app.stopping = true
	c.app.mu.Unlock()
	if first {
		c.init.io.Complain(err)
	}
	c.app.halt()
	return err
}

// prestartPid1 is called before pid 1 is let go that is the CMD or its
// parent.
func (c *container) prestartPid1() error {
	err := c.runPrestart()
	if err == nil {
		c.hooks.starting()
		return nil
	}
	if kerr := c.killAll(); kerr != nil && !errors.Is(kerr, libcontainer.ErrNotRunning) {
		err = errors.Join(err, kerr)
	}
	return err
}

// runInside runs a hook in the running container.
func (c *container) runInside(ctx context.Context, hook config.Hook, option string) (started bool, err error) {
	proc, err := child.NewProcess(c.hooks.process(hook, option))
	if err != nil {
		return false, err
	}
	end := c.hooks.runBounded(ctx, hook.Timeout, proc, func(ctx context.Context) error {
		return c.startInside(ctx, proc, func(lc *libcontainer.Container) error { return c.children.Start(ctx, lc, proc) })
	})
	return end.started, c.hooks.report(hook, option, end, func() error { return inspectProgram(c.pid1, hook.Path) })
}

// report logs how a hook ended, and says why if it failed.
func (h *hookSet) report(hook config.Hook, option string, end hookEnd, inspect func() error) error {
	if end.err != nil && !end.stuck && (!end.started || end.status.Exited() && end.status.ExitStatus() == notExecuted) {
		if fault := inspect(); fault != nil {
			end.err = fault
		}
	}
	entry := h.log.WithFields(log.Fields{"hook": hook.Path, "option": option})
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

// poststop runs the poststop hooks that have not begun, each once. gone tells
// whether the container is gone in which run runs a hook; a hook that could
// not be started for that is left for later.
func (h *hookSet) poststop(ctx context.Context, ending hooks.Ending, gone func() bool, run func(context.Context, config.Hook) (started bool, err error)) {
	h.running.Lock()
	defer h.running.Unlock()
	for {
		hook, ctx, ok := h.begin(ctx, ending)
		if !ok {
			return
		}
		started, err := run(ctx, hook)
		h.mu.Lock()
		h.cancel()
		h.cancel = nil
		if err != nil && !started && !h.aborted && gone() {
			h.record.Next--
			h.active = false
			err = h.store()
			h.mu.Unlock()
			if err != nil {
				h.log.WithError(err).Warn("store what the hooks need")
			}
			return
		}
		h.mu.Unlock()
	}
}

// begin takes the next poststop hook.
func (h *hookSet) begin(ctx context.Context, ending hooks.Ending) (hook config.Hook, _ context.Context, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.record
	h.active = r.Due && r.Next < len(r.Poststop)
	if !h.active {
		return hook, nil, false
	}
	if h.aborted || ctx.Err() != nil {
		h.log.WithField("hooks", len(r.Poststop)-r.Next).Warn("poststop hooks are not run any more")
		r.Next = len(r.Poststop)
		h.active = false
	} else {
		if r.Ending == nil {
			r.Ending = &ending
		}
		hook, ok = r.Poststop[r.Next], true
		r.Next++
		h.begun = true
		ctx, h.cancel = context.WithCancel(ctx)
	}
	if err := h.store(); err != nil {
		h.log.WithError(err).Warn("store what the hooks need")
	}
	return hook, ctx, ok
}

// leaving reports whether pid 1 is gone or about to be.
func (c *container) leaving() bool {
	return !c.pid1.HasFiles()
}

func never() bool { return false }

// signalled notes a signal that asks the task to stop: no prestart hook is
// waited for any more.
func (h *hookSet) signalled() {
	h.mu.Lock()
	if !h.begun {
		h.asked = true
	}
	h.mu.Unlock()
	h.stop()
}

// killed ends the poststop hooks if they run, and reports whether they do.
func (h *hookSet) killed() bool {
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.active {
		return false
	}
	h.aborted = true
	if h.cancel != nil {
		h.cancel()
	}
	return true
}

// afterCMD is called when the CMD of a service has ended for good, or will
// not be started, and before its init is halted.
func (c *container) afterCMD() {
	if c.plan.Service == nil {
		return
	}
	h := c.hooks
	h.stop()
	h.prepare.Do(func() { h.prepared = errStopped }) // waits for those that run
	c.mu.Lock()
	killed := c.killed
	c.mu.Unlock()
	end := c.known(killed)
	e := c.ending(end, end.status(), time.Now())
	c.reportEnding(e)
	if killed {
		return // afterInit will do it
	}
	h.poststop(context.Background(), e, c.leaving, func(ctx context.Context, hook config.Hook) (bool, error) {
		return c.runInside(ctx, hook, hooks.Poststop)
	})
}

// afterInit is called when pid 1 is gone, with the status that is about to be
// announced.
func (c *container) afterInit(end ending, status uint32, at time.Time) {
	e := c.ending(end, status, at)
	c.reportEnding(e)
	h := c.hooks
	c.made.State = annotated(c.made.State, e)
	if len(c.made.Poststop) > 0 {
		if err := c.bundle.Store(bundle.MadeFile, c.made); err != nil {
			c.log.WithError(err).Warn("store what the host's hooks are told")
		}
	}
	a := alone{hookSet: h, rootfs: c.spec.Root.Path}
	h.poststop(context.Background(), e, never, a.run)
	h.release()
}

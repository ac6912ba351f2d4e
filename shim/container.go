package shim

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/time/rate"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/event"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launcher"
	"containerd-shim-rich/life"
	"containerd-shim-rich/logs"
	"containerd-shim-rich/stdio"
)

// container is a task: pid 1, what is executed beside it, and what has to be
// closed after them. Create makes it, and what is not below mu does not change
// after that, but for what is said.
type container struct {
	id, namespace string
	bundle        bundle.Bundle
	events        *event.Queue
	children      *child.Children
	loggers       *stdio.Loggers
	log           *log.Entry

	shape       initmode.Shape
	mode        string         // the init in effect
	halt        syscall.Signal // asks it for an orderly shutdown
	haltTimeout time.Duration
	rootfs      string
	made        bundle.Made // changed by who ends the container

	lc       *libcontainer.Container
	fence    *cgroup.Fence // nil unless the container may write to its cgroups on cgroup v2
	metrics  cgroup.Metrics
	shares   cgroup.Shares
	starters *starters // of what runs beside pid 1

	init       *process
	pid1       child.Proc           // of init, for as long as there is a container
	console    *stdio.ConsoleLog    // what pid 1 itself says; nil if it has no console of its own
	server     *launcher.Server     // nil without launchers
	watch      *launcher.Watch      // nil if the init does not tell its state
	components *launcher.Components // nil without components

	life      *life.Life
	gone      chan struct{} // closed when pid 1 has been waited for
	haltAsked chan struct{} // has an item when the init is to be asked to halt
	haltOver  chan struct{} // closed when nothing is done about that any more
	insisting sync.Once     // the end of a container that was killed
	hooks     *hooks.Set
	poststart []specs.Hook
	crashes   *rate.Limiter // the reports of those after which it goes on
	closing   closing

	// freezing is held while the container is paused or resumed.
	freezing sync.Mutex

	// removing is held while the container's cgroups are: with destroyed they
	// are its own no longer.
	removing  sync.Mutex
	destroyed bool

	mu        sync.Mutex
	resources *specs.LinuxResources
	execs     map[string]*process
	running   sync.WaitGroup // execs whose end is not announced yet
	ended     bool           // nothing may be started beside pid 1 any more
	paused    bool
}

func newContainer(ctx context.Context, s *service, r *task.CreateTaskRequest) *container {
	return &container{
		id:        r.ID,
		namespace: s.namespace,
		bundle:    bundle.Bundle(r.Bundle),
		events:    s.events,
		children:  s.children,
		loggers:   s.loggers,
		log:       logs.Host(log.G(ctx).WithField("container", r.ID)),
		gone:      make(chan struct{}),
		haltAsked: make(chan struct{}, 1),
		haltOver:  make(chan struct{}),
		crashes:   rate.NewLimiter(launcher.ReportsPerSecond, launcher.MaxReports),
		execs:     map[string]*process{},
	}
}

// process returns pid 1 for an empty execID.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.execs[execID]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("exec %s of container %s: %w", execID, c.id, errdefs.ErrNotFound)
}

// sharesPIDs reports whether processes of the container may outlive pid 1.
func (c *container) sharesPIDs() bool {
	cfg := c.lc.Config()
	return !cfg.Namespaces.IsPrivate(configs.NEWPID)
}

// leaving reports whether pid 1 is gone or about to be.
func (c *container) leaving() bool { return !c.pid1.HasFiles() }

// stuck is how long the end of the task, or of an exec, is held up by a reader
// that takes nothing.
func (c *container) stuck() time.Duration {
	if c.life.Killed() {
		return stdio.KilledStuck
	}
	return stdio.DrainStuck
}

// removeContainer removes the container whose processes are gone.
func (c *container) removeContainer() error {
	c.removing.Lock()
	defer c.removing.Unlock()
	if err := child.Remove(c.lc, c.made.Cgroups, removeWait); err != nil {
		return fmt.Errorf("destroy container: %w", err)
	}
	c.destroyed = true
	return nil
}

// runPoststop runs the hooks of the bundle that are due when the container is
// gone.
func (c *container) runPoststop() error {
	if err := hooks.RunPoststop(c.bundle, &c.made, 0); err != nil {
		// Everything is gone, a hook failed (runtime-spec, Lifecycle 13).
		c.log.WithError(err).Warn("poststop hooks")
	}
	return nil
}

// removeFiles removes the directory of ours in the bundle.
func (c *container) removeFiles() error { return os.RemoveAll(c.bundle.Path()) }

// closeShares closes what puts processes into the cgroups of components.
func (c *container) closeShares() error {
	c.shares.Close()
	return nil
}

// sweep removes what was made outside of the bundle.
func (c *container) sweep() error { return sweep(c.bundle, c.made) }

// killInit ends a pid 1 that was not to be, and waits for it.
func (c *container) killInit() error {
	if _, err := c.init.proc.Pid(); err != nil {
		return nil // there was none
	}
	err := c.killAll()
	if isOver(err) {
		err = nil
	}
	_, _ = c.children.Wait(c.init.proc) // it may never have existed
	close(c.gone)
	return err
}

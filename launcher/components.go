package launcher

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/time/rate"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
	"containerd-shim-rich/logs"
)

const (
	// MaxReports bounds what is logged of a component, or the command, whose
	// launcher may be anybody, at once.
	MaxReports = 20
	// ReportsPerSecond bounds it afterwards.
	ReportsPerSecond = 2
)

// Components are those of a container. A nil one is empty.
type Components struct {
	list []*component
	life *life.Life

	done     chan struct{} // closed when the container is gone
	wakeOnce sync.Once
	started  chan struct{} // closed when the command has been started
	start    sync.Once
	closing  sync.Once
	// watching is whoever waits for a component that an init as the command
	// requires.
	watching sync.WaitGroup
}

// NewComponents are none yet.
func NewComponents(of *life.Life) *Components {
	return &Components{life: of, done: make(chan struct{}), started: make(chan struct{})}
}

// Add adds a component whose output goes to a log, or with nil to the syslog in
// the container. root of the container is uid and gid. crashed is told of each of
// its crashes.
func (s *Components) Add(planned initmode.Component, to logs.Writer, uid, gid int, entry *log.Entry, crashed func(service string, status uint32)) error {
	c := &component{
		Component: planned,
		life:      s.life,
		log:       entry.WithField("component", planned.Name),
		crashed:   crashed,
		reports:   rate.NewLimiter(ReportsPerSecond, MaxReports),
		ready:     make(chan struct{}),
		failed:    make(chan struct{}),
	}
	if to == nil {
		to = c
	}
	output, err := logs.NewOutput(to, uid, gid)
	if err != nil {
		return fmt.Errorf("streams of component %s: %w", planned.Name, err)
	}
	c.output = output
	s.list = append(s.list, c)
	return nil
}

// Limit gives components the files that put processes into their cgroups.
func (s *Components) Limit(files func(name string) []*os.File) {
	for _, c := range s.list {
		c.limits = files(c.Name)
	}
}

// CommandIsInit is told that the command, which is the init itself, is running:
// nothing can hold it back. If it requires what cannot be started, the container
// is halted.
func (s *Components) CommandIsInit(act func(life.Actions)) {
	if s == nil {
		return
	}
	s.commandStarted()
	s.watching.Go(func() {
		if _, do := s.await(nil); do != (life.Actions{}) {
			act(do)
		}
	})
}

// len is how many there are.
func (s *Components) len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// wake ends what waits, as the container is gone.
func (s *Components) wake() {
	if s != nil {
		s.wakeOnce.Do(func() { close(s.done) })
	}
}

// Close ends the logs as well.
func (s *Components) Close() {
	if s == nil {
		return
	}
	s.closing.Do(func() {
		s.wake()
		s.watching.Wait()
		// At once: somebody outside of the container may hold each open.
		var outputs sync.WaitGroup
		defer outputs.Wait()
		for _, c := range s.list {
			outputs.Go(c.output.Close)
		}
	})
}

// commandStarted lets the components start that come after the command.
func (s *Components) commandStarted() {
	if s != nil {
		s.start.Do(func() { close(s.started) })
	}
}

// await waits for the components that the command waits for. It returns why the
// command must not start, if it must not, and what follows from that. It ends
// early if the peer is gone.
func (s *Components) await(gone <-chan struct{}) (reason string, do life.Actions) {
	begin := time.Now()
	for _, c := range s.list {
		if !c.Before {
			continue
		}
		problem, over := c.await(begin.Add(c.ReadyTimeout), gone, s.done)
		switch {
		case over:
			return "", do
		case problem == "":
		case c.Required:
			c.log.WithField("reason", problem).Error("a required component is missing, there will be no command")
			reason = fmt.Sprintf("component %s, which is required: %s", c.Name, problem)
			return reason, s.life.ComponentMissing(reason)
		default:
			c.log.WithField("reason", problem).Warn("the command starts without a component")
		}
	}
	return "", do
}

// await waits until the component is ready or will not be: then it says why. over
// is true if that does not matter any more.
func (c *component) await(deadline time.Time, gone, done <-chan struct{}) (problem string, over bool) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-c.ready:
	case <-c.failed:
		problem = c.life.ComponentFault(c.Name)
	case <-late.C:
		problem = fmt.Sprintf("not ready within %v", c.ReadyTimeout)
	case <-gone:
		over = true
	case <-done:
		over = true
	}
	return problem, over
}

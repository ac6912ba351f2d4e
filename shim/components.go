package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"

	"containerd-shim-rich/logs"
)

// componentsDir holds, in a bundle, the directories of the components.
const componentsDir = "components"

const (
	// maxComponents bounds how many a container may have: each has a
	// connection, and a line in some inits' files.
	maxComponents = 16
	// maxReports bounds what is logged of a component whose launcher may be
	// anybody, at once and afterwards per second.
	maxReports       = 20
	reportsPerSecond = 2
)

// componentSet are the components of a container. A nil one is empty.
type componentSet struct {
	list []*component
	// command starts the CMD where it runs beside them below dumb-init.
	command *launch.Record
	log     *log.Entry

	done    chan struct{} // closed when the container is gone
	waking  sync.Once
	closing sync.Once
	started chan struct{} // closed when the CMD has been started
	start   sync.Once
	// watching is whoever waits for a component that an init as the CMD
	// requires.
	watching sync.WaitGroup

	mu      sync.Mutex
	failure string // why there is no CMD
}

// component is one of them.
type component struct {
	initmode.Component
	log     *log.Entry
	output  *logs.Output
	limits  []*os.File // of cgroups, to put processes in
	crashed func(service string, status uint32)
	reports *rate.Limiter

	ready  chan struct{} // closed at the first time that it is
	failed chan struct{} // closed when it will not be

	mu     sync.Mutex
	conn   *launch.Conn // of its launcher
	reason string       // why it failed
}

// chooseComponents reads the definitions of the components that a container
// is to have. The sandbox of a pod has none.
func chooseComponents(spec *specs.Spec, o config.Options) ([]*components.Definition, error) {
	if initmode.IsSandbox(spec.Annotations) {
		return nil, nil
	}
	var chosen []*components.Definition
	for _, by := range []struct {
		source string
		names  []string
	}{{o.AlwaysComponentsSource, o.AlwaysComponents}, {o.ComponentsSource, o.Components}} {
		for _, name := range by.names {
			if slices.ContainsFunc(chosen, func(d *components.Definition) bool { return d.Name == name }) {
				continue
			}
			d, err := components.Load(components.Dir, name)
			if err != nil {
				return nil, withClass(fmt.Errorf("%s: %w", by.source, err), errdefs.ErrInvalidArgument)
			}
			chosen = append(chosen, d)
		}
	}
	if len(chosen) > maxComponents {
		return nil, fmt.Errorf("components: %d are chosen, at most %d can be: %w", len(chosen), maxComponents, errdefs.ErrInvalidArgument)
	}
	return chosen, nil
}

// exposeComponents makes the directories of the components visible in the
// bundle, from where the container gets them.
func (c *container) exposeComponents() error {
	ours, err := c.bundle.Open()
	if err != nil {
		return err
	}
	defer ours.Close()
	dir := c.bundle.Path(componentsDir)
	for _, comp := range c.plan.Components {
		file := filepath.Join(components.Dir, comp.Name+".toml")
		if comp.Log == components.LogSyslog && c.plan.Init == config.InitDumbInit {
			return fmt.Errorf("%s: log: value %q: init %q starts no syslog; use %q or %q: %w",
				file, comp.Log, c.plan.Init, components.LogFile, components.LogContainer, errdefs.ErrInvalidArgument)
		}
		if comp.Directory == "" {
			continue
		}
		if info, err := os.Stat(comp.Directory); err != nil || !info.IsDir() {
			return fmt.Errorf("%s: directory: value %q: the host has no such directory; make it, or correct the path: %w",
				file, comp.Directory, errdefs.ErrInvalidArgument)
		}
		target := filepath.Join(dir, comp.Name)
		if err := ours.MkdirAll(path.Join(componentsDir, comp.Name), 0o711); err != nil {
			return err
		}
		if err := exposeReadOnly(comp.Directory, target); err != nil {
			// A mount of its own, which is no more than read-only: a
			// container that may mount can undo that.
			if err := bindReadOnly(comp.Directory, target); err != nil {
				return fmt.Errorf("%s: directory: value %q: mount it: %w", file, comp.Directory, err)
			}
		}
	}
	return nil
}

func bindReadOnly(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// newComponents makes what the components of the plan need on the host. root
// of the container is uid and gid.
func (c *container) newComponents(uid, gid int) (_ *componentSet, err error) {
	if len(c.plan.Components) == 0 {
		return nil, nil
	}
	s := &componentSet{
		command: c.plan.Command,
		log:     c.log,
		done:    make(chan struct{}),
		started: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, planned := range c.plan.Components {
		comp := &component{
			Component: planned,
			log:       c.log.WithField("component", planned.Name),
			crashed:   c.crashed,
			reports:   rate.NewLimiter(reportsPerSecond, maxReports),
			ready:     make(chan struct{}),
			failed:    make(chan struct{}),
		}
		s.list = append(s.list, comp)
		var to logs.Writer
		switch planned.Log {
		case components.LogContainer:
			var fds [2]int
			var end string
			if fds, end, err = c.init.io.Anew(); err == nil {
				to = logs.NewStreams(planned.Name, fds, end)
			}
		case components.LogSyslog:
			to = comp
		default:
			to, err = logs.OpenFile(c.made.Logs, planned.Name, planned.LogSize)
		}
		if err != nil {
			return nil, fmt.Errorf("log of component %s: %w", planned.Name, err)
		}
		if comp.output, err = logs.NewOutput(to, uid, gid); err != nil {
			return nil, fmt.Errorf("streams of component %s: %w", planned.Name, err)
		}
	}
	return s, nil
}

// commandIsInit is told that the CMD, which is the init itself, is running:
// nothing can hold it back. If it requires what cannot be started, the
// container is halted.
func (s *componentSet) commandIsInit(c *container) {
	if s == nil || c.plan.Service != nil || c.plan.Command != nil {
		return
	}
	s.commandStarted()
	s.watching.Add(1)
	go func() {
		defer s.watching.Done()
		if reason := s.await(nil); reason != "" {
			c.init.io.Complain(errors.New(reason))
			c.halt()
		}
	}()
}

// len is how many there are.
func (s *componentSet) len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// wake ends what waits, as the container is gone.
func (s *componentSet) wake() {
	if s != nil {
		s.waking.Do(func() { close(s.done) })
	}
}

// close ends the logs as well.
func (s *componentSet) close() {
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
			if c.output != nil {
				outputs.Go(c.output.Close)
			}
		}
	})
}

// failed tells why there is no CMD, if a component is the reason.
func (s *componentSet) failed() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// commandStarted lets the components start that come after the CMD.
func (s *componentSet) commandStarted() {
	if s != nil {
		s.start.Do(func() { close(s.started) })
	}
}

// await waits for the components that the CMD waits for. It returns why the
// CMD must not start, if it must not, and ends early if the peer is gone.
func (s *componentSet) await(gone <-chan struct{}) (reason string) {
	if s == nil {
		return ""
	}
	select {
	case <-s.started:
		return "" // it is being started again
	default:
	}
	begin := time.Now()
	for _, c := range s.list {
		if !c.Before {
			continue
		}
		late := time.NewTimer(time.Until(begin.Add(c.ReadyTimeout)))
		problem := ""
		select {
		case <-c.ready:
		case <-c.failed:
			c.mu.Lock()
			problem = c.reason
			c.mu.Unlock()
		case <-late.C:
			problem = fmt.Sprintf("not ready within %v", c.ReadyTimeout)
		case <-gone:
			late.Stop()
			return ""
		case <-s.done:
			late.Stop()
			return ""
		}
		late.Stop()
		switch {
		case problem == "":
		case c.Required:
			c.log.WithField("reason", problem).Error("a required component is missing, there will be no command")
			reason = fmt.Sprintf("component %s, which is required: %s", c.Name, problem)
			s.mu.Lock()
			s.failure = reason
			s.mu.Unlock()
			return reason
		default:
			c.log.WithField("reason", problem).Warn("the command starts without a component")
		}
	}
	return ""
}

// admit holds the CMD's launcher back until the CMD may start. It reports
// whether it may.
func (a *app) admit(conn *launch.Conn) (bool, error) {
	if a.components == nil || a.record == nil {
		return true, nil
	}
	if err := conn.Send(launch.Hold{}); err != nil {
		return false, err
	}
	reason, alive := a.components.hold(conn)
	if !alive {
		return false, nil
	}
	if reason == "" {
		return true, nil
	}
	a.mu.Lock()
	first := a.result == nil
	if first {
		a.result, a.own = &launch.Exited{Status: statusNotStarted}, true
	}
	a.stopping = true
	a.mu.Unlock()
	if first {
		a.stdio.Complain(errors.New(reason))
	}
	err := conn.Send(launch.Refuse{Reason: reason})
	a.halt()
	return false, err
}

// hold is await for a launcher that is to wait for its order. alive is false
// if it did not.
func (s *componentSet) hold(conn *launch.Conn) (reason string, alive bool) {
	waited := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(waited)
		reason = s.await(gone)
	}()
	alive = stays(conn, waited)
	close(gone)
	<-waited
	return reason, alive
}

// stays waits until a channel is closed and reports whether the peer, which
// has nothing to say, is still there.
func stays(conn *launch.Conn, until <-chan struct{}) bool {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return false
	}
	late := make(chan bool, 1) // whether nothing came until the deadline
	go func() {
		_, files, err := conn.Receive()
		dropAll(files)
		late <- errors.Is(err, os.ErrDeadlineExceeded)
	}()
	select {
	case <-late:
		return false
	case <-until:
	}
	// Between two messages a deadline does no harm.
	if err := conn.SetDeadline(time.Now()); err != nil {
		return false
	}
	if !<-late {
		return false
	}
	return conn.SetDeadline(time.Now().Add(startTimeout)) == nil
}

// serve serves the launcher of a component or the one of the CMD beside it.
func (s *componentSet) serve(a *app, conn *launch.Conn, role string) error {
	if s == nil {
		return conn.Send(launch.Refuse{Reason: "the container has no components"})
	}
	if role == launch.RoleCommand {
		return s.serveCommand(a, conn)
	}
	m, _, err := conn.Receive()
	if err != nil {
		return err
	}
	hello, ok := m.(launch.Component)
	if !ok {
		return fmt.Errorf("unexpected %T", m)
	}
	i := slices.IndexFunc(s.list, func(c *component) bool { return c.Name == hello.Name })
	if i < 0 {
		return conn.Send(launch.Refuse{Reason: "the container has no such component"})
	}
	c := s.list[i]
	if !c.take(conn) {
		return conn.Send(launch.Refuse{Reason: "it runs already"})
	}
	defer c.leave()
	conn.ExpectFrames(launch.MaxFromContainer)
	if !c.Before {
		either := make(chan struct{})
		go func() {
			defer close(either)
			select {
			case <-s.started:
			case <-s.done:
			}
		}()
		if !stays(conn, either) {
			return nil
		}
	}
	return c.follow(a, conn)
}

// serveCommand starts the CMD beside the components. Its signals, its streams
// and its end are dumb-init's business.
func (s *componentSet) serveCommand(a *app, conn *launch.Conn) error {
	if s.command == nil {
		return conn.Send(launch.Refuse{Reason: "the command is not run beside the components"})
	}
	reason, alive := s.hold(conn)
	if !alive {
		return nil
	}
	if reason != "" {
		return conn.Send(launch.Refuse{Reason: reason})
	}
	if err := conn.Send(launch.Start{Record: *s.command}); err != nil {
		return err
	}
	m, _, err := conn.Receive()
	if err != nil {
		return err
	}
	if _, ok := m.(launch.Started); !ok {
		return fmt.Errorf("unexpected %T", m)
	}
	s.commandStarted()
	if err := a.door.untimed(conn); err != nil {
		return err
	}
	if _, _, err = conn.Receive(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (c *component) take(conn *launch.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return false
	}
	c.conn = conn
	return true
}

func (c *component) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
}

// follow gives the launcher its order and takes its reports.
func (c *component) follow(a *app, conn *launch.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	if len(c.limits) > 0 {
		if err := conn.Send(launch.Limits{}, c.limits...); err != nil {
			return err
		}
	}
	if err := conn.Send(c.Order, c.output.Ends[:]...); err != nil {
		return err
	}
	if err := a.door.untimed(conn); err != nil {
		return err
	}
	runs := true // until its end is reported: then its launcher may go
	for {
		m, files, err := conn.Receive()
		dropAll(files)
		if err != nil {
			if runs {
				c.report(func(l *log.Entry) { l.Warn("the launcher of a component is gone") })
				c.fail("its launcher is gone")
			}
			if !errors.Is(err, io.EOF) {
				return fmt.Errorf("component %s: %w", c.Name, err)
			}
			return nil
		}
		switch m := m.(type) {
		case launch.Started:
			runs = true
			c.report(func(l *log.Entry) { l.WithField("pid", m.PID).Info("component started") })
		case launch.Ready:
			c.becomeReady()
		case launch.Failed:
			c.report(func(l *log.Entry) { l.WithField("code", m.Code).Warnf("component cannot be started: %.300q", m.Reason) })
			c.fail(fmt.Sprintf("%.300s", oneLine(m.Reason)))
		case launch.Ended:
			runs = false
			c.ended(m)
		default:
			return fmt.Errorf("component %s: unexpected %T", c.Name, m)
		}
	}
}

// report logs, unless there has been too much of it.
func (c *component) report(what func(*log.Entry)) {
	if c.reports.Allow() {
		what(c.log)
	}
}

// ended reports the end of a component at once, a crash with its last words.
func (c *component) ended(m launch.Ended) {
	c.report(func(l *log.Entry) {
		status, signal := m.Code, ""
		if m.Signal != 0 {
			status = 128 + m.Signal
			signal = hooks.Ending{Code: status}.Signal()
		}
		service := initmode.ComponentService(c.Name)
		l = l.WithFields(log.Fields{"service": service, "code": status, "signal": signal})
		if m.Again >= 0 {
			l = l.WithField("restart-in", time.Duration(m.Again)*time.Millisecond)
		}
		words := c.output.LastWords()
		switch {
		case m.Requested:
			l.Info("component ended")
		case status == 0:
			l.Warn("component ended")
		default:
			l.WithField("stderr", words).Warn("component crashed")
			c.crashed(service, status)
		}
	})
	switch {
	case m.Again >= 0:
	case m.Signal != 0:
		c.fail(fmt.Sprintf("it ended by signal %d before it was ready", m.Signal))
	default:
		c.fail(fmt.Sprintf("it ended with code %d before it was ready", m.Code))
	}
}

func (c *component) becomeReady() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

// fail notes that a component will not become ready. One that has been stays.
func (c *component) fail(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
	case <-c.failed:
	default:
		c.reason = reason
		close(c.failed)
	}
}

// oneLine keeps a text of the container's from looking like more than one.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// WriteLine sends a line to the syslog in the container.
func (c *component) WriteLine(_ string, line []byte, _ bool) bool {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return false
	}
	return conn.Send(launch.Line{Text: strings.ReplaceAll(string(line), "\x00", " ")}) == nil
}

// Close is there for the sake of lineWriter.
func (c *component) Close() error { return nil }

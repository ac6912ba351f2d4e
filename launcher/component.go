package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"golang.org/x/time/rate"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
	"containerd-shim-rich/life"
	"containerd-shim-rich/logs"
)

// component is one of a container's.
type component struct {
	initmode.Component
	life    *life.Life
	log     *log.Entry
	output  *logs.Output
	limits  []*os.File // of cgroups, to put processes in
	crashed func(service string, status uint32)
	reports *rate.Limiter

	ready  chan struct{} // closed at the first time that it is
	failed chan struct{} // closed when it will not be

	conn atomic.Pointer[launch.Conn] // of its launcher
}

// serveComponent serves the launcher of a component.
func (s *Server) serveComponent(conn *launch.Conn) error {
	if s.Components == nil {
		return conn.Send(launch.Refuse{Reason: "the container has no components"})
	}
	hello, err := receive[launch.Component](conn)
	if err != nil {
		return err
	}
	list := s.Components.list
	i := slices.IndexFunc(list, func(c *component) bool { return c.Name == hello.Name })
	if i < 0 {
		return conn.Send(launch.Refuse{Reason: "the container has no such component"})
	}
	c := list[i]
	if !c.conn.CompareAndSwap(nil, conn) {
		return conn.Send(launch.Refuse{Reason: "it runs already"})
	}
	defer c.conn.Store(nil)
	conn.ExpectFrames(launch.MaxFromContainer)
	if !c.Before && !s.Components.afterCommand(conn) {
		return nil
	}
	if err := c.order(s.door, conn); err != nil {
		return err
	}
	return c.follow(conn)
}

// afterCommand waits with a launcher until the command has been started, and
// reports whether the launcher is still there.
func (s *Components) afterCommand(conn *launch.Conn) bool {
	either := make(chan struct{})
	go func() {
		defer close(either)
		select {
		case <-s.started:
		case <-s.done:
		}
	}()
	return stays(conn, either)
}

// order tells the launcher what to run.
func (c *component) order(d *door, conn *launch.Conn) error {
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
	return d.untimed(conn)
}

// follow takes the launcher's reports.
func (c *component) follow(conn *launch.Conn) error {
	runs := true // until its end is reported: then its launcher may go
	for {
		m, files, err := conn.Receive()
		dropAll(files)
		if err != nil {
			if runs {
				c.report(func(l *log.Entry) { l.Warn("the launcher of a component is gone") })
				if !c.commandIsInit() { // which may be on its way out, or start another
					c.fail("its launcher is gone")
				}
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
		case launch.ComponentExited:
			runs = false
			c.ended(m)
		default:
			return fmt.Errorf("component %s: %w", c.Name, errUnexpected(m))
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
func (c *component) ended(m launch.ComponentExited) {
	c.report(func(l *log.Entry) {
		status, signal := m.Code, ""
		if m.Signal != 0 {
			status = 128 + m.Signal
			signal = life.Ending{Code: status}.Signal()
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
	case m.Requested && c.commandIsInit():
		c.becomeReady() // it stops what it likes, and nothing is waited for
	case m.Signal != 0:
		c.fail(fmt.Sprintf("it ended by signal %d before it was ready", m.Signal))
	default:
		c.fail(fmt.Sprintf("it ended with code %d before it was ready", m.Code))
	}
}

// commandIsInit reports whether the command is the init that has started the
// component.
func (c *component) commandIsInit() bool { return c.life.Shape == initmode.InitItself }

func (c *component) becomeReady() {
	if c.life.ComponentReady(c.Name) {
		close(c.ready)
	}
}

// fail notes that a component will not become ready. One that has been stays.
func (c *component) fail(reason string) {
	if c.life.ComponentFailed(c.Name, reason) {
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
	conn := c.conn.Load()
	if conn == nil {
		return false
	}
	return conn.Send(launch.Line{Text: strings.ReplaceAll(string(line), "\x00", " ")}) == nil
}

// Close is there for the sake of logs.Writer.
func (c *component) Close() error { return nil }

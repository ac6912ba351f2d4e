package launcher

import (
	"errors"
	"io"
	"os"
	"time"

	"containerd-shim-rich/launch"
	"containerd-shim-rich/life"
)

// admit holds the command's launcher back until the command may start. It
// reports whether it may.
func (s *Server) admit(conn *launch.Conn) (bool, error) {
	if s.Components == nil {
		return true, nil
	}
	if err := conn.Send(launch.Hold{}); err != nil {
		return false, err
	}
	return s.hold(conn)
}

// hold waits, with a launcher that waits for its order, for the components that
// come before the command, and reports whether that may start. A launcher that
// did not wait is not served any more.
func (s *Server) hold(conn *launch.Conn) (bool, error) {
	select {
	case <-s.Components.started:
		// It is being started again.
		err := conn.SetDeadline(time.Now().Add(startTimeout))
		return err == nil, err
	default:
	}
	var reason string
	var do life.Actions
	waited, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(waited)
		reason, do = s.Components.await(gone)
	}()
	alive := stays(conn, waited)
	close(gone)
	<-waited
	var err error
	if alive && reason != "" {
		err = conn.Send(launch.Refuse{Reason: reason})
	}
	if reason != "" {
		s.Act(do)
	}
	return alive && reason == "", err
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

// serveChild starts the command beside the components. Its signals, its streams
// and its end are dumb-init's business.
func (s *Server) serveChild(conn *launch.Conn) error {
	if s.Child == nil || s.Components == nil {
		return conn.Send(launch.Refuse{Reason: "the command is not run beside the components"})
	}
	if may, err := s.hold(conn); !may {
		return err
	}
	if err := conn.Send(launch.Start{Record: *s.Child}); err != nil {
		return err
	}
	if _, err := receive[launch.Started](conn); err != nil {
		return err
	}
	s.running()
	if err := s.door.untimed(conn); err != nil {
		return err
	}
	if _, _, err := conn.Receive(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

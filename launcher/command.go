package launcher

import (
	"errors"
	"fmt"
	"os"
	"time"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
	"containerd-shim-rich/life"
	"containerd-shim-rich/stdio"
)

// startTimeout bounds the launcher's preparations to start the command.
const startTimeout = time.Minute

// serveCommand gives the command to a launcher and follows it to its end, and
// then to the next one as far as the option on-exit wants that.
func (s *Server) serveCommand(conn *launch.Conn) error {
	if s.Service == nil {
		return conn.Send(launch.Refuse{Reason: "the command is the init itself"})
	}
	if admitted, err := s.admit(conn); !admitted {
		return err
	}
	err := s.Prestart()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	if err != nil {
		return conn.Send(launch.Refuse{Reason: err.Error()})
	}
	if refusal := s.begin(); refusal != "" {
		return conn.Send(launch.Refuse{Reason: refusal})
	}
	defer func() {
		s.Life.Left()
		<-s.turn
	}()
	conn.ExpectFrames(launch.MaxFromContainer)
	defer s.passSignals(conn)()
	for {
		exited, err := s.follow(conn)
		if !s.exited(exited) {
			return err
		}
		if again, err := s.await(conn); !again {
			return err
		}
	}
}

// begin takes the turn to have the command, or says why not. A launcher that has
// ended may not have been noticed yet when its init starts the next.
func (s *Server) begin() (refusal string) {
	const stopping = "the container is stopping"
	if s.Life.Ends() {
		return stopping
	}
	select {
	case s.turn <- struct{}{}:
	case <-time.After(reportTimeout):
		return "the command is running already"
	}
	now := time.Now()
	answer, do := s.Life.Ask(now)
	if answer != life.Given {
		<-s.turn
		return stopping
	}
	s.Begins(now)
	s.Act(do)
	return ""
}

// exited tells how the command ended, nil if its launcher died with it, and
// reports whether the launcher stays.
func (s *Server) exited(e *launch.Exited) (stays bool) {
	now := time.Now()
	stays, do := s.Life.Exited(e, now)
	state := s.Life.State()
	entry := s.Log.WithField("status", *state.Status).WithField("requested", e != nil && e.Requested)
	if at := state.RestartAt; at != nil {
		entry = entry.WithField("restart-in", at.Sub(now))
	}
	entry.Info("command ended")
	s.Act(do)
	return stays
}

// follow has a launcher start the command, and returns how it ended, or nil with
// the error that the launcher was lost by.
func (s *Server) follow(conn *launch.Conn) (*launch.Exited, error) {
	s.shown.flush() // the command may look at it
	if s.Streams.HasTerminal() {
		conn.ExpectFiles(1)
		defer conn.ExpectFiles(0)
	}
	if err := s.handOver(conn); err != nil {
		return nil, err
	}
	for {
		m, files, err := conn.Receive()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case launch.Started:
			// From here on it may take as long as it wants.
			err = s.door.untimed(conn)
			s.running()
		case launch.Console:
			err = takeTerminal(s.Streams, files)
			files = nil
		case launch.Failed:
			s.Log.WithField("status", m.Code).Warnf("%.300s", oneLine(m.Reason))
			return &launch.Exited{Status: m.Code}, nil
		case launch.Exited:
			return &m, nil
		default:
			err = errUnexpected(m)
		}
		dropAll(files)
		if err != nil {
			return nil, err
		}
	}
}

// handOver sends a launcher the order to start the command, with its streams.
func (s *Server) handOver(conn *launch.Conn) error {
	files, closeFiles, err := s.Streams.HandOver()
	if err != nil {
		return err
	}
	defer closeFiles()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	start := launch.Start{Record: *s.Service, Stay: s.Life.OnExit != config.OnExitStop}
	if err := conn.Send(start, files...); err != nil {
		return err
	}
	s.Act(s.Life.Handed())
	return nil
}

// running notes that the command has been started.
func (s *Server) running() {
	s.Life.Running()
	s.Components.commandStarted()
}

// dropAll closes files that have been received.
func dropAll(files []*os.File) {
	for _, f := range files {
		launch.Drop(f)
	}
}

// takeTerminal accepts the master of the command's terminal. Anything may have
// been sent in its place.
func takeTerminal(to *stdio.Streams, files []*os.File) error {
	if len(files) != 1 {
		dropAll(files)
		return fmt.Errorf("terminal: %d descriptors", len(files))
	}
	return to.TakeTerminal(files[0])
}

// passSignals sends the launcher of the command the signals that are kept for it,
// until the function that it returns is called.
func (s *Server) passSignals(conn *launch.Conn) (end func()) {
	left, passed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(passed)
		s.pass(conn, left)
	}()
	return func() {
		close(left)
		_ = conn.SetDeadline(time.Now()) // it is not sent anything any more
		<-passed
	}
}

// pass is the only one to wait for a launcher that does not read.
func (s *Server) pass(conn *launch.Conn, left <-chan struct{}) {
	for {
		n := s.Life.NextSignal()
		if n == 0 {
			select {
			case <-s.wake:
				continue
			case <-left:
				return
			}
		}
		if conn.Send(launch.Signal{Number: n}) != nil {
			return // whoever reads from it sees why
		}
	}
}

// await waits with a launcher that has no command until the next start is due.
// again is false if there is none: the launcher has left.
func (s *Server) await(conn *launch.Conn) (again bool, err error) {
	until, wait := s.Life.Waits()
	if !wait {
		return false, nil
	}
	if err := s.door.deadline(conn, until); err != nil {
		return false, err
	}
	m, files, err := conn.Receive()
	dropAll(files)
	if _, left := m.(launch.Exited); left {
		return false, nil // the init has asked it to
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		again, do := s.Life.Due(time.Now())
		s.Act(do)
		return again, nil
	}
	if err == nil {
		err = errUnexpected(m)
	}
	expected, do := s.Life.Deserted()
	s.Act(do)
	if expected {
		return false, nil
	}
	return false, err
}

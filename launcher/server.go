package launcher

import (
	"fmt"
	"time"

	"github.com/containerd/log"

	"containerd-shim-rich/launch"
	"containerd-shim-rich/life"
	"containerd-shim-rich/stdio"
)

// Config is what a Server needs to know of its container.
type Config struct {
	Life *life.Life
	// Act does what follows from a fact.
	Act func(life.Actions)
	// Service starts the command as a service of the init; nil if it is none.
	Service *launch.Record
	// Child starts the command beside components, as a child of dumb-init that
	// has inherited its streams; nil if it is not started like that.
	Child *launch.Record
	// Streams are the task's.
	Streams *stdio.Streams
	// Components run beside the command; nil if there are none.
	Components *Components
	// Watch hears how the init is; nil if it does not say so.
	Watch *Watch
	// Prestart is called before the command is started, and Begins when that is
	// certain.
	Prestart func() error
	Begins   func(time.Time)
	// Mismatched is told that a launcher is of another version.
	Mismatched func()
	// Show writes the state of the command where the container sees it.
	Show func(life.State)
	Log  *log.Entry
}

// Server serves the launchers of a container, which connect each time its init
// starts them. No more than one at a time has the command.
type Server struct {
	Config
	door  *door // nil before Listen
	shown *latest
	wake  chan struct{} // has an item after a signal has been kept for the command
	turn  chan struct{} // has the item of the launcher that has the command
}

// NewServer serves nobody before Listen.
func NewServer(c Config) *Server {
	return &Server{
		Config: c,
		shown:  newLatest(func() { c.Show(c.Life.State()) }),
		wake:   make(chan struct{}, 1),
		turn:   make(chan struct{}, 1),
	}
}

// Listen serves at a socket in dir, which is for the user who the launchers are
// (uid and gid on the host), until Close.
func (s *Server) Listen(dir string, uid, gid int) (err error) {
	s.door, err = openDoor(dir, uid, gid, maxConns+s.Components.len(), s.Streams.HasTerminal(), s.Log, s.serve)
	return err
}

// Close stops serving once the container is gone. What a launcher has reported
// before is taken in.
func (s *Server) Close() {
	if s == nil {
		return
	}
	s.Components.wake()
	s.Life.Close()
	if s.door != nil {
		s.door.close()
	}
	s.shown.close()
}

// Show has the state of the command written, soon.
func (s *Server) Show() {
	if s != nil {
		s.shown.changed()
	}
}

// Wake says that a signal has been kept for the command.
func (s *Server) Wake() {
	if s == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) serve(conn *launch.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	hello, err := receive[launch.Hello](conn)
	if err != nil {
		return err
	}
	if err := s.greet(conn, hello); err != nil {
		return err
	}
	switch hello.Role {
	case launch.RoleEvent:
		return s.serveEvent(conn)
	case launch.RoleService:
		return s.serveCommand(conn)
	case launch.RoleChild:
		return s.serveChild(conn)
	case launch.RoleComponent:
		return s.serveComponent(conn)
	}
	return fmt.Errorf("unknown role %.20q", hello.Role)
}

// receive takes the next message, which has to be of a kind that no descriptors
// come with.
func receive[M launch.Message](conn *launch.Conn) (m M, err error) {
	got, _, err := conn.Receive()
	if err != nil {
		return m, err
	}
	m, ok := got.(M)
	if !ok {
		return m, errUnexpected(got)
	}
	return m, nil
}

// errUnexpected is about a message that has no place where it came.
func errUnexpected(m launch.Message) error { return fmt.Errorf("unexpected %T", m) }

func (s *Server) serveEvent(conn *launch.Conn) error {
	event, err := receive[launch.Event](conn)
	if err != nil {
		return err
	}
	switch event.Name {
	case life.InitStarting:
		// Of a systemctl that does not wait (before 240).
	case life.InitRunning, life.InitDegraded, life.InitMaintenance, life.InitStopping:
		s.Watch.told(event.Name)
	case "reboot":
		s.Life.Rebooting()
	case "failed":
		s.Act(s.Life.LauncherFailed())
	case "halted":
		s.Act(s.Life.Halted())
	default:
		return fmt.Errorf("unknown event %.20q", event.Name)
	}
	return nil
}

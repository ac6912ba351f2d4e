package launch

import "fmt"

// Version is the protocol's version, told in Hello by both sides. It changes
// with every change of a message or of what is expected after one. What never
// changes is the frame, that Hello begins with the version and Refuse is a text,
// so that any two versions can tell each other why they do not fit.
//
// 2: the shim says Hello as well.
const Version = 2

// Mark is a text in every launcher that has this version of the protocol, by
// which its file can be told.
const Mark = "This launcher has version 2 of the launch protocol."

// EventVersion is the one of a Hello for RoleEvent, which has not changed since:
// also a launcher that the shim does not understand can tell that it has failed.
const EventVersion = 1

// Frame sizes, in bytes of body, a receiver should allow its peer.
const (
	MaxFromShim      = 8 << 20  // Start holds an argv and an environment
	MaxFromContainer = 64 << 10 // a reason at most
	MaxGreeting      = 1 << 10  // a role and a name, of a peer that may be anybody
)

// The roles of Hello.
const (
	RoleService = "app"   // runs the command; expects Start or Refuse
	RoleEvent   = "event" // tells one Event and closes
	RoleShim    = "shim"  // the shim itself, in answer to all roles but RoleEvent
)

// Message is one of Hello, Event, Start, Refuse, Started, Failed, Console,
// Signal and Exited, or one of those for components in component.go.
type Message interface {
	kind() kind
	encode(e *encoder)
}

type kind uint8

const (
	kindHello kind = iota + 1
	kindEvent
	kindStart
	kindRefuse
	kindStarted
	kindFailed
	kindConsole
	kindSignal
	kindExited
)

// files is how many descriptors may come with a message of this kind.
func (k kind) files() int {
	switch k {
	case kindStart:
		return 3
	case kindConsole:
		return 1
	case kindRun:
		return 3
	case kindLimits:
		return maxFiles
	default:
		return 0
	}
}

// Hello is the first message on every connection, in both directions. What
// follows the version in a Hello of another one is not known: Role is what can
// be made of it, and the rest is skipped.
type Hello struct {
	Version uint16
	Role    string
}

// Event tells that the container's init is about to do something the shim
// should know of: "reboot", "poweroff", "halt". Container to shim.
type Event struct {
	Name string
}

// Start orders the command to be started. With it come stdin, stdout and stderr,
// in this order, or no descriptor if Record.Terminal is set. The descriptors
// are put into blocking mode, as runc's are. With Stay the launcher waits for
// another Start when the command has ended without the init's request, or could
// not be started. Shim to container.
type Start struct {
	Record Record
	Stay   bool
}

// Refuse answers a Hello whose sender may not start anything, for instance
// because the command has ended for good. Shim to container.
type Refuse struct {
	Reason string
}

// Started reports that the command has been exec'ed. PID is its id in the
// container's pid namespace and always positive. Container to shim.
type Started struct {
	PID int32
}

// Failed reports that the command could not be exec'ed. Code is 127 if the program
// was not found and 126 for everything else, as a POSIX shell has it; Reason
// names the program. Nothing follows it, unless the launcher was to stay.
// Container to shim.
type Failed struct {
	Code   uint32
	Reason string
}

// Console brings one descriptor, the master of the command's terminal, before the
// command starts. A hostile container can send any descriptor at all: the receiver
// has to check what it got. Container to shim.
type Console struct{}

// Signal orders a signal to be sent to the command, and to it alone. Number is
// between 1 and 64. Shim to container.
type Signal struct {
	Number int
}

// Exited reports how the command ended. Status is what [ExitStatus] gives, at most
// 255. Requested is true if the init had told the launcher to stop: also while
// it stayed without a command, Status then being that of the last one. Nothing
// follows it, unless the launcher stays. Container to shim.
type Exited struct {
	Status    uint32
	Requested bool
}

func (Hello) kind() kind   { return kindHello }
func (Event) kind() kind   { return kindEvent }
func (Start) kind() kind   { return kindStart }
func (Refuse) kind() kind  { return kindRefuse }
func (Started) kind() kind { return kindStarted }
func (Failed) kind() kind  { return kindFailed }
func (Console) kind() kind { return kindConsole }
func (Signal) kind() kind  { return kindSignal }
func (Exited) kind() kind  { return kindExited }

func (m Hello) encode(e *encoder) {
	e.uint16(m.Version)
	e.string(m.Role)
}

func (m Event) encode(e *encoder) { e.string(m.Name) }

func (m Start) encode(e *encoder) {
	m.Record.encode(e)
	e.bool(m.Stay)
}

func (m Refuse) encode(e *encoder)  { e.string(m.Reason) }
func (m Started) encode(e *encoder) { e.int32(m.PID) }

func (m Failed) encode(e *encoder) {
	e.uint32(m.Code)
	e.string(m.Reason)
}

func (Console) encode(*encoder)    {}
func (m Signal) encode(e *encoder) { e.int(m.Number) }

func (m Exited) encode(e *encoder) {
	e.uint32(m.Status)
	e.bool(m.Requested)
}

// maxStatus is the greatest exit status: a signal's number is at most 64 and
// an exit code has 8 bits.
const maxStatus = 255

// validSignal tells whether n is a signal's number; NSIG is 64 on all
// architectures but MIPS.
func validSignal(n int) bool { return n >= 1 && n <= 64 }

func decodeHello(d *decoder) Hello {
	h := Hello{Version: d.uint16()}
	if d.err != nil || h.Version == Version || h.Version == EventVersion {
		h.Role = d.string()
		return h
	}
	rest := decoder{s: d.s}
	if role := rest.string(); rest.err == nil {
		h.Role = role
	}
	d.s = ""
	return h
}

func decodeMessage(k kind, body []byte) (Message, error) {
	d := decoder{s: string(body)}
	var m Message
	switch k {
	case kindHello:
		m = decodeHello(&d)
	case kindEvent:
		m = Event{Name: d.string()}
	case kindStart:
		m = Start{Record: decodeRecord(&d), Stay: d.bool()}
	case kindRefuse:
		m = Refuse{Reason: d.string()}
	case kindStarted:
		s := Started{PID: d.int32()}
		if s.PID < 1 {
			d.fail("a process id out of range")
		}
		m = s
	case kindFailed:
		f := Failed{Code: d.uint32(), Reason: d.string()}
		if f.Code > maxStatus {
			d.fail("an exit status out of range")
		}
		m = f
	case kindConsole:
		m = Console{}
	case kindSignal:
		s := Signal{Number: d.int()}
		if !validSignal(s.Number) {
			d.fail("a signal number out of range")
		}
		m = s
	case kindExited:
		x := Exited{Status: d.uint32(), Requested: d.bool()}
		if x.Status > maxStatus {
			d.fail("an exit status out of range")
		}
		m = x
	default:
		if m = decodeComponent(k, &d); m == nil {
			return nil, fmt.Errorf("%w: type %d", ErrMalformed, k)
		}
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("message of type %d: %w", k, err)
	}
	return m, nil
}

package launch

import "time"

// The roles of Hello of those that run the operator's components.
const (
	RoleComponent = "component" // runs one; tells its name by Component, expects Run or Refuse
	RoleChild     = "command"   // runs the command below dumb-init; expects Start without descriptors, or Refuse
)

const (
	kindComponent kind = iota + 32
	kindLimits
	kindRun
	kindReady
	kindComponentExited
	kindHold
	kindLine
)

// Component names the component that the sender of Hello is to run. Container
// to shim.
type Component struct {
	Name string
}

// Limits brings files of cgroups: a process whose id is written to each of
// them is under the limits of the component. It precedes Run, if there are
// limits. Shim to container.
type Limits struct{}

// Restart says when a component is started again.
type Restart uint8

// The values of Restart.
const (
	RestartNever Restart = iota
	RestartOnFailure
	RestartAlways
)

// Run orders a component to be started and kept running. With it come stdin,
// stdout and stderr. Shim to container.
type Run struct {
	Record Record
	// Ready is a command that ends with 0 when the component is ready, and
	// ReadyPort a TCP port that then accepts connections at the loopback
	// address. With neither it is ready once started.
	Ready     []string
	ReadyPort uint16

	Restart Restart
	// Delay is the pause before the first restart; it doubles up to MaxDelay
	// and is the first again once the component has run for so long.
	Delay, MaxDelay time.Duration
	// StopTimeout lies between the stop signal and KILL.
	StopTimeout time.Duration
}

// Ready reports that a component is. Container to shim.
type Ready struct{}

// ComponentExited reports the end of a component: by a signal if Signal is not 0, else
// with Code. Again is the pause before it is started again, in ms, and
// negative if it is not. Requested tells that the init had asked for the end.
// Container to shim.
type ComponentExited struct {
	Code      uint32
	Signal    uint32
	Again     int32
	Requested bool
}

// Hold says that Start or Refuse may take long, as a component has to be ready
// first. Shim to container.
type Hold struct{}

// Line is a line of output for the syslog in the container. Shim to
// container.
type Line struct {
	Text string
}

func (Component) kind() kind       { return kindComponent }
func (Limits) kind() kind          { return kindLimits }
func (Run) kind() kind             { return kindRun }
func (Ready) kind() kind           { return kindReady }
func (ComponentExited) kind() kind { return kindComponentExited }
func (Hold) kind() kind            { return kindHold }
func (Line) kind() kind            { return kindLine }

func (m Component) encode(e *encoder) { e.string(m.Name) }
func (Limits) encode(*encoder)        {}
func (Ready) encode(*encoder)         {}
func (Hold) encode(*encoder)          {}
func (m Line) encode(e *encoder)      { e.string(m.Text) }

func (m Run) encode(e *encoder) {
	m.Record.encode(e)
	e.strings(m.Ready)
	e.uint16(m.ReadyPort)
	e.uint8(uint8(m.Restart))
	for _, d := range []time.Duration{m.Delay, m.MaxDelay, m.StopTimeout} {
		e.uint64(uint64(d))
	}
}

func (m ComponentExited) encode(e *encoder) {
	e.uint32(m.Code)
	e.uint32(m.Signal)
	e.int32(m.Again)
	e.bool(m.Requested)
}

// decodeComponent decodes a message of a component. It is nil if there is
// none of that kind.
func decodeComponent(k kind, d *decoder) Message {
	switch k {
	case kindComponent:
		return Component{Name: d.string()}
	case kindLimits:
		return Limits{}
	case kindRun:
		m := Run{Record: decodeRecord(d), Ready: d.strings(), ReadyPort: d.uint16(), Restart: Restart(d.uint8())}
		if m.Restart > RestartAlways {
			d.fail("a restart policy out of range")
		}
		for _, field := range []*time.Duration{&m.Delay, &m.MaxDelay, &m.StopTimeout} {
			if *field = time.Duration(d.uint64()); *field < 0 {
				d.fail("a duration out of range")
			}
		}
		return m
	case kindReady:
		return Ready{}
	case kindComponentExited:
		m := ComponentExited{Code: d.uint32(), Signal: d.uint32(), Again: d.int32(), Requested: d.bool()}
		if m.Code > maxStatus || m.Signal != 0 && !validSignal(int(min(m.Signal, maxStatus))) {
			d.fail("an exit status out of range")
		}
		return m
	case kindHold:
		return Hold{}
	case kindLine:
		return Line{Text: d.string()}
	}
	return nil
}

// Package launch is what the shim and the launcher inside the container say to
// each other: how the image's own command is to be started, that it
// has been, and how it ended.
//
// They speak over a unix stream socket, one per container, in frames:
//
//	uint32 length of what follows the type | uint8 type | body
//
// All integers are little endian. Descriptors travel by SCM_RIGHTS with the
// first byte of the frame they belong to. Both ends come from one build and
// agree on [Version]; neither keeps state across a connection.
//
// The container's root can open that socket, so nothing that comes from the
// container's side is trusted: frames are bounded by the receiver, a count is
// checked against the bytes that are there before anything is allocated for
// it, and descriptors nobody asked for are closed.
package launch

import "fmt"

// Record says how to start one process, with the names and the meaning the
// OCI runtime specification gives them in its "process" object.
type Record struct {
	// Args is argv, and Env the environment as NAME=VALUE. They may hold any
	// byte but NUL and are handed on as they are. Args[0] is looked up in the
	// PATH of Env, in the container, if it has no slash.
	Args []string
	Env  []string

	// Cwd is an absolute path in the container, made if it is missing.
	// Empty: the launcher's own.
	Cwd string

	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups, all of them; empty means none

	// Umask is the file mode creation mask. Nil leaves the one the init
	// hands down. (runc uses 0022 where the spec has none.)
	Umask *uint32

	// Capabilities holds all five sets. Nil leaves what the init hands down.
	Capabilities *Capabilities

	Rlimits         []Rlimit
	NoNewPrivileges bool

	OOMScoreAdj *int        // -1000 to 1000; nil leaves it
	IOPriority  *IOPriority // nil leaves it
	Scheduler   *Scheduler  // nil leaves it

	// StopSignal is the number of the signal the command gets when the init asks
	// the launcher to stop; 0 means SIGTERM.
	StopSignal int

	// Terminal asks for a new pseudo terminal as stdin, stdout, stderr and
	// controlling terminal. Rows and Cols are its size in characters, set if
	// neither is 0.
	Terminal bool
	Rows     uint16
	Cols     uint16
}

// Capabilities are bit masks: bit n stands for the capability whose number in
// capabilities(7) is n. Bits the kernel does not know are ignored.
type Capabilities struct {
	Bounding    uint64
	Effective   uint64
	Permitted   uint64
	Inheritable uint64
	Ambient     uint64
}

// Rlimit is one resource limit of setrlimit(2), in that call's units.
type Rlimit struct {
	Resource int // RLIMIT_*
	Soft     uint64
	Hard     uint64
}

// IOPriority is an argument of ioprio_set(2).
type IOPriority struct {
	Class    int // IOPRIO_CLASS_*: 1 real time, 2 best effort, 3 idle
	Priority int // level within the class, 0 to 7
}

// Scheduler holds the fields of struct sched_attr of sched_setattr(2) under
// the names the OCI runtime specification gives them; times are in ns.
type Scheduler struct {
	Policy   uint32 // SCHED_*
	Nice     int32
	Priority int32
	Flags    uint64 // SCHED_FLAG_*
	Runtime  uint64
	Deadline uint64
	Period   uint64
}

// Marshal returns the record in the form Unmarshal reads. It fails if a
// string holds a NUL byte or a number does not fit 32 bits.
func (r *Record) Marshal() ([]byte, error) {
	var e encoder
	r.encode(&e)
	if e.err != nil {
		return nil, fmt.Errorf("marshal record: %w", e.err)
	}
	return e.b, nil
}

// Unmarshal sets the record to what Marshal wrote. Its errors wrap
// [ErrMalformed]; the record is then unchanged.
func (r *Record) Unmarshal(b []byte) error {
	d := decoder{s: string(b)}
	n := decodeRecord(&d)
	if err := d.end(); err != nil {
		return fmt.Errorf("unmarshal record: %w", err)
	}
	*r = n
	return nil
}

func (r *Record) encode(e *encoder) {
	e.strings(r.Args)
	e.strings(r.Env)
	e.string(r.Cwd)
	e.uint32(r.UID)
	e.uint32(r.GID)
	e.count(len(r.Groups))
	for _, g := range r.Groups {
		e.uint32(g)
	}
	e.bool(r.Umask != nil)
	if r.Umask != nil {
		e.uint32(*r.Umask)
	}
	e.bool(r.Capabilities != nil)
	if c := r.Capabilities; c != nil {
		for _, set := range []uint64{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
			e.uint64(set)
		}
	}
	e.count(len(r.Rlimits))
	for _, l := range r.Rlimits {
		e.int(l.Resource)
		e.uint64(l.Soft)
		e.uint64(l.Hard)
	}
	e.bool(r.NoNewPrivileges)
	e.bool(r.OOMScoreAdj != nil)
	if r.OOMScoreAdj != nil {
		e.int(*r.OOMScoreAdj)
	}
	e.bool(r.IOPriority != nil)
	if p := r.IOPriority; p != nil {
		e.int(p.Class)
		e.int(p.Priority)
	}
	e.bool(r.Scheduler != nil)
	if s := r.Scheduler; s != nil {
		e.uint32(s.Policy)
		e.int32(s.Nice)
		e.int32(s.Priority)
		for _, v := range []uint64{s.Flags, s.Runtime, s.Deadline, s.Period} {
			e.uint64(v)
		}
	}
	e.int(r.StopSignal)
	e.bool(r.Terminal)
	e.uint16(r.Rows)
	e.uint16(r.Cols)
}

func decodeRecord(d *decoder) (r Record) {
	r.Args = d.strings()
	r.Env = d.strings()
	r.Cwd = d.string()
	r.UID = d.uint32()
	r.GID = d.uint32()
	if n := d.count(4); n > 0 {
		r.Groups = make([]uint32, n)
		for i := range r.Groups {
			r.Groups[i] = d.uint32()
		}
	}
	if d.bool() {
		r.Umask = new(d.uint32())
	}
	if d.bool() {
		r.Capabilities = &Capabilities{
			Bounding: d.uint64(), Effective: d.uint64(), Permitted: d.uint64(),
			Inheritable: d.uint64(), Ambient: d.uint64(),
		}
	}
	if n := d.count(20); n > 0 {
		r.Rlimits = make([]Rlimit, n)
		for i := range r.Rlimits {
			r.Rlimits[i] = Rlimit{Resource: d.int(), Soft: d.uint64(), Hard: d.uint64()}
		}
	}
	r.NoNewPrivileges = d.bool()
	if d.bool() {
		r.OOMScoreAdj = new(d.int())
	}
	if d.bool() {
		r.IOPriority = &IOPriority{Class: d.int(), Priority: d.int()}
	}
	if d.bool() {
		r.Scheduler = &Scheduler{
			Policy: d.uint32(), Nice: d.int32(), Priority: d.int32(),
			Flags: d.uint64(), Runtime: d.uint64(), Deadline: d.uint64(), Period: d.uint64(),
		}
	}
	if r.StopSignal = d.int(); r.StopSignal != 0 && !validSignal(r.StopSignal) {
		d.fail("a signal number out of range")
	}
	r.Terminal = d.bool()
	r.Rows = d.uint16()
	r.Cols = d.uint16()
	return r
}

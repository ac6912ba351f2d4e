package life

import (
	"slices"
	"sync"
	"syscall"
	"time"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

// Setup is what does not change in the life of a container.
type Setup struct {
	// Shape is what the command is to pid 1.
	Shape initmode.Shape
	// OnExit is the option on-exit.
	OnExit string
	// Halt is the signal that asks the init for an orderly shutdown, 0 if none
	// does.
	Halt syscall.Signal
	// Stops are the signals to the task that ask it to stop. With AnyStops any
	// does, as in a pod: no engine tells the runtime the image's stop signal
	// there, and the CRI has no call to send another.
	Stops    []syscall.Signal
	AnyStops bool
}

// Life is how far a container is. Its methods are facts, which may come from
// any goroutine, and questions.
type Life struct {
	Setup

	mu sync.Mutex

	started bool      // pid 1 has been let go
	begun   bool      // a launcher has been given the command
	running bool      // the command itself has been started
	since   time.Time // when the command was started first
	latest  time.Time // and last

	phase   phase
	held    bool  // a launcher has the command, or waits for its next start
	pending []int // signals that the launcher has not been sent yet
	state   State
	pause   time.Duration // before the next start by on-exit

	stopping bool           // the command is not started any more
	asked    bool           // the task was asked to stop
	early    syscall.Signal // what asked for it while there was no command yet
	killed   bool           // the task was sent SIGKILL
	slain    bool           // and pid 1 was there to die of it

	result *launch.Exited // how the command ended last
	own    bool           // that end was to be the end of the container

	prestart  bool   // a prestart hook failed
	refused   bool   // pid 1 could not be let go
	unfit     bool   // the launcher is of another version
	component string // why a component that is required is missing

	components map[string]*component
	init       InitState
	rebooting  bool // the init is about to reboot
	halted     bool // the init has halted, and stays
	halting    bool // it was asked to halt
	closed     bool // nobody is listened to any more
	gone       bool // pid 1 is
	status     syscall.WaitStatus

	verdict  *Ending // once somebody has been told
	reported bool    // the crash that ends the container has been told
}

// phase is where the command is.
type phase int

const (
	idle    phase = iota // there is none
	handing              // a launcher is about to be told to start it
	handed               // a launcher has been told to
)

// New is the life of a container that has been created.
func New(s Setup) *Life { return &Life{Setup: s, components: map[string]*component{}} }

// Actions are what is to be done after a fact, in this order. The zero value is
// nothing.
type Actions struct {
	// CallOff says that no prestart hook is waited for any more.
	CallOff bool
	// Show says that State has changed.
	Show bool
	// Complain is for whoever reads the command's stderr.
	Complain error
	// Crashed is a crash after which the container goes on.
	Crashed *Ending
	// Wake says that there is a signal for the command's launcher.
	Wake bool
	// Signal goes to pid 1, and Forward to the command by way of dumb-init.
	Signal, Forward syscall.Signal
	// Halt is asked of the init once, after the poststop hooks in the container.
	Halt bool
	// Kill ends all processes. With Abort, because the task was sent SIGKILL,
	// the poststop hooks end as well.
	Kill, Abort bool
}

func (l *Life) stops(sig syscall.Signal) bool {
	return sig == l.Halt && sig != 0 || l.AnyStops || slices.Contains(l.Stops, sig)
}

// halt asks for the init's halt, unless that was done before. The caller holds
// mu.
func (l *Life) halt(do *Actions) {
	do.Halt = !l.halting
	l.halting = true
}

// Started is told when pid 1 has been let go.
func (l *Life) Started() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = true
}

// NotStarted is told when it could not be.
func (l *Life) NotStarted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = true
}

// Begins is told when pid 1, which is the command or its parent, is about to be
// let go.
func (l *Life) Begins(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began(now)
}

func (l *Life) began(now time.Time) {
	if l.since.IsZero() {
		l.since = now
	}
	l.latest = now
}

// Rebooting is told when the init is about to reboot.
func (l *Life) Rebooting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rebooting = true
}

// Halted is told when the init stays although everything is down: it may not
// call reboot(2).
func (l *Life) Halted() (do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halted = true
	do.Kill = true
	return do
}

// Close is told when nobody is listened to any more. What is told later is about
// nobody.
func (l *Life) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// InitGone is told at once when pid 1 has ended.
func (l *Life) InitGone(status syscall.WaitStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone, l.status = true, status
}

// Halting reports whether the init was asked to halt.
func (l *Life) Halting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halting
}

// Killed reports whether the task was sent SIGKILL.
func (l *Life) Killed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed
}

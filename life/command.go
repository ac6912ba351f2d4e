package life

import (
	"time"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

const (
	// restartMin and restartMax bound the pause before the command is started
	// again, which doubles each time.
	restartMin = 100 * time.Millisecond
	restartMax = time.Minute
	// restartReset is how long the command must have run for the pause to be
	// short again.
	restartReset = 10 * time.Second
)

// State is what app.json tells about the command.
type State struct {
	Running bool `json:"running"`
	// Starts counts them.
	Starts int `json:"starts"`
	// Status and EndedAt are those of the last end; nil before it.
	Status  *uint32    `json:"status,omitempty"`
	EndedAt *time.Time `json:"endedAt,omitempty"`
	// RestartAt is when the command is started again; nil if it is not.
	RestartAt *time.Time `json:"restartAt,omitempty"`
	// Error is why the command cannot be started at all.
	Error string `json:"error,omitempty"`
}

// State is how the command is.
func (l *Life) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Answer is what a launcher gets that asks for the command.
type Answer int

// The answers.
const (
	Given    Answer = iota // it has the command
	Stopping               // there will be no command any more
	Busy                   // another launcher has it
)

// Ask is told when a launcher asks for the command.
func (l *Life) Ask(now time.Time) (Answer, Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopping || l.closed:
		return Stopping, Actions{}
	case l.held:
		return Busy, Actions{}
	}
	l.held, l.begun = true, true
	l.pause = 0
	return Given, l.start(now)
}

// Ends reports whether the command is not started any more.
func (l *Life) Ends() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopping || l.closed
}

// start notes that a launcher gets the command. The caller holds mu.
func (l *Life) start(now time.Time) Actions {
	l.began(now)
	l.phase = handing
	l.state.Starts++
	l.state.Running, l.state.RestartAt = true, nil
	return Actions{Show: true}
}

// Handed is told when the launcher has the command: it gets the signals that
// have come before.
func (l *Life) Handed() Actions {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = handed
	return Actions{Wake: true}
}

// Running is told when the command itself has been started.
func (l *Life) Running() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = true
}

// Exited is told how the command ended, or nothing of that if its launcher was
// lost with it. If the init did not mean to stop it and the option on-exit does
// not say otherwise, or if the task is to stop, the container ends with it.
// stays tells that the launcher waits for what comes next: without one nothing
// can be started again.
func (l *Life) Exited(exited *launch.Exited, now time.Time) (stays bool, do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := exited == nil
	if lost {
		// Whoever kills a service's main process kills the service.
		exited = &launch.Exited{Status: StatusKilled}
	}
	ran := now.Sub(l.latest)
	l.phase, l.result = idle, exited
	goesOn := !l.stopping && !l.closed && (l.OnExit == config.OnExitKeep || l.OnExit == config.OnExitRestart && !lost)
	l.own = !exited.Requested && !goesOn
	l.state.Running, l.state.Status, l.state.EndedAt = false, &exited.Status, &now
	do.Show = true
	switch {
	case l.own || l.stopping:
		l.stopping = true
		l.halt(&do)
	case exited.Status != 0 && !exited.Requested:
		do.Crashed = crash(exited.Status, ran)
	}
	stays = goesOn && !exited.Requested && !lost
	if pause := l.nextPause(ran); stays && l.OnExit == config.OnExitRestart {
		at := now.Add(pause)
		l.state.RestartAt = &at
	}
	return stays, do
}

// nextPause is the pause between two starts of a command that ran for so long.
func (l *Life) nextPause(ran time.Duration) time.Duration {
	if l.pause == 0 || ran >= restartReset {
		l.pause = restartMin
	}
	pause := l.pause
	l.pause = min(2*l.pause, restartMax)
	return pause
}

// crash is what is known of a crash after which the container goes on.
func crash(status uint32, ran time.Duration) *Ending {
	e := &Ending{Code: status, Reason: ReasonExit, Duration: ran}
	if e.Signal() != "" {
		e.Reason = ReasonSignal
	}
	return e
}

// Waits is asked for the time until which a launcher without a command waits: the
// zero time if nothing but its own end is to come. wait is false if it is not to
// wait at all.
func (l *Life) Waits() (until time.Time, wait bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.RestartAt != nil {
		until = *l.state.RestartAt
	}
	return until, !l.closed
}

// Due is told when the time has come, and answers whether the launcher has the
// command again.
func (l *Life) Due(now time.Time) (again bool, do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping || l.closed {
		// The init ends the launcher.
		return false, do
	}
	return true, l.start(now)
}

// Deserted is told when a launcher that was to wait is gone, which is expected if
// the container is to end. Otherwise, if on-exit is to start the command again,
// nobody is left who could.
func (l *Life) Deserted() (expected bool, do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	expected = l.stopping || l.closed
	if !expected && l.OnExit == config.OnExitRestart {
		l.stopping = true
		l.halt(&do)
	}
	return expected, do
}

// Left is told when a launcher does not have the command any more.
func (l *Life) Left() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
}

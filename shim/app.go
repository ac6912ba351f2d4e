package shim

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"

	"containerd-shim-rich/stdio"
)

const (
	// startTimeout bounds the launcher's preparations to start the CMD.
	startTimeout = time.Minute
	// maxPending bounds the signals kept for a CMD, as RLIMIT_SIGPENDING
	// bounds them in the kernel (getrlimit(2)).
	maxPending = 64
	// realTime is the first of the signals that are queued, each as often as
	// it is sent (signal(7)).
	realTime = 32
)

// app is the CMD of a container whose init runs it as a service. It serves
// the launcher, which connects each time the init starts the service.
//
// The container's root can connect as well. It can lie only about its own
// container: sizes and times are bounded, and no more than one connection at
// a time is the app.
type app struct {
	record   *launch.Record    // nil if the CMD is the init itself
	onExit   string            // the option on-exit
	shown    *latest[appState] // shows the state to the container
	told     func(string)      // takes the init's state
	stdio    *stdio.Streams
	isStop   func(syscall.Signal) bool
	halt     func()       // asks the init for an orderly shutdown
	kill     func() error // ends the init at once
	prestart func() error // is called before the CMD is started
	begins   func()       // and this when that is certain
	// crashed is told of a crash after which the container goes on.
	crashed func(e launch.Exited, ran time.Duration)
	log     *log.Entry
	// mismatched is told that a launcher is of another version.
	mismatched func()
	// components are what else the launchers run.
	components *componentSet
	door       *door
	wake       chan struct{} // has an item after a signal has been kept for the CMD

	mu       sync.Mutex
	current  *launch.Conn  // of the launcher that has the CMD
	released chan struct{} // closed when current is gone
	closed   bool
	phase    phase
	begun    bool           // a launcher has been given the CMD
	stopping bool           // the task was asked to stop
	stop     syscall.Signal // what asked for it while there was no CMD
	pending  []int          // signals that its launcher has not been sent yet
	result   *launch.Exited // how the CMD ended last
	own      bool           // that end was to be the end of the container
	unfit    bool           // the launcher is of another version, so there was no CMD
	reboot   bool           // the init is about to reboot
	halted   bool           // the init has halted
	state    appState
}

// phase is where the CMD is.
type phase int

const (
	idle    phase = iota // there is none
	handing              // a launcher is about to be told to start it
	running              // a launcher has been told to
)

// listen serves the launcher at a socket in dir, which is for the user who
// the launcher is (uid and gid on the host).
func (a *app) listen(dir string, uid, gid int) (err error) {
	a.door, err = openDoor(dir, uid, gid, maxConns+a.components.len(), a.stdio.HasTerminal(), a.log, a.serve)
	return err
}

// close stops serving once the container is gone. What a launcher has
// reported before is taken in.
func (a *app) close() {
	a.components.wake()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	if a.door != nil {
		a.door.close()
	}
	a.shown.close()
}

func (a *app) serve(conn *launch.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	m, _, err := conn.Receive()
	if err != nil {
		return err
	}
	hello, ok := m.(launch.Hello)
	if !ok {
		return fmt.Errorf("unexpected %T", m)
	}
	if err := a.greet(conn, hello); err != nil {
		return err
	}
	switch hello.Role {
	case launch.RoleEvent:
		return a.serveEvent(conn)
	case launch.RoleApp:
		return a.serveApp(conn)
	case launch.RoleComponent, launch.RoleCommand:
		return a.components.serve(a, conn, hello.Role)
	}
	return fmt.Errorf("unknown role %.20q", hello.Role)
}

func (a *app) serveEvent(conn *launch.Conn) error {
	m, _, err := conn.Receive()
	if err != nil {
		return err
	}
	event, ok := m.(launch.Event)
	if !ok {
		return fmt.Errorf("unexpected %T", m)
	}
	switch event.Name {
	case initStarting:
		// Of a systemctl that does not wait (before 240).
	case initRunning, initDegraded, initMaintenance, initStopping:
		a.told(event.Name)
	case "reboot":
		a.rebooting()
	case "failed":
		// The init could not start the launcher, or that could not
		// reach the shim: there will be no CMD.
		a.mu.Lock()
		never := !a.begun
		if never {
			a.stopping = true
		}
		a.mu.Unlock()
		if never {
			a.halt()
		}
	case "halted":
		// This init stays although everything is down: it may not call
		// reboot(2).
		a.mu.Lock()
		a.halted = true
		a.mu.Unlock()
		return a.kill()
	default:
		return fmt.Errorf("unknown event %.20q", event.Name)
	}
	return nil
}

// rebooting notes that the init is about to reboot.
func (a *app) rebooting() {
	a.mu.Lock()
	a.reboot = true
	a.mu.Unlock()
}

// serveApp gives the CMD to a launcher and follows it to its end, and then
// to the next one as far as the option on-exit wants that.
func (a *app) serveApp(conn *launch.Conn) error {
	if a.record == nil {
		return conn.Send(launch.Refuse{Reason: "the command is the init itself"})
	}
	if admitted, err := a.admit(conn); !admitted {
		return err
	}
	err := a.prestart()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	if err != nil {
		return conn.Send(launch.Refuse{Reason: err.Error()})
	}
	if reason := a.begin(conn); reason != "" {
		return conn.Send(launch.Refuse{Reason: reason})
	}
	a.begins()
	defer a.release()
	conn.ExpectFrames(launch.MaxFromContainer)
	left, passed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(passed)
		a.pass(conn, left)
	}()
	defer func() {
		close(left)
		_ = conn.SetDeadline(time.Now()) // it is not sent anything any more
		<-passed
	}()
	for pause := (backoff{}); ; {
		start := time.Now()
		exited, err := a.follow(conn)
		lost := exited == nil
		if lost {
			// The launcher died with its CMD: whoever kills a service's
			// main process kills the service.
			exited = &launch.Exited{Status: statusKilled}
		}
		ran := time.Since(start)
		if !a.end(*exited, lost, ran, pause.after(ran)) {
			return err
		}
		if again, err := a.await(conn); !again {
			return err
		}
	}
}

// begin makes conn the app's, or says why not. A launcher that has ended may
// not have been noticed yet when its init starts the next.
func (a *app) begin(conn *launch.Conn) string {
	timeout := time.After(reportTimeout)
	for {
		a.mu.Lock()
		switch {
		case a.stopping || a.closed:
			a.mu.Unlock()
			return "the container is stopping"
		case a.current == nil:
			a.current, a.released = conn, make(chan struct{})
			a.begun = true
			a.starting()
			a.mu.Unlock()
			return ""
		}
		released := a.released
		a.mu.Unlock()
		select {
		case <-released:
		case <-timeout:
			return "the command is running already"
		}
	}
}

// starting notes that a launcher gets the CMD. The caller holds mu.
func (a *app) starting() {
	a.phase = handing
	a.state.Starts++
	a.state.Running, a.state.RestartAt = true, nil
	a.shown.put(a.state)
}

func (a *app) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = nil
	close(a.released)
}

func (a *app) follow(conn *launch.Conn) (*launch.Exited, error) {
	a.shown.flush() // the CMD may look at it
	if a.stdio.HasTerminal() {
		conn.ExpectFiles(1)
		defer conn.ExpectFiles(0)
	}
	files, closeFiles, err := a.stdio.HandOver()
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return nil, err
	}
	start := launch.Start{Record: *a.record, Stay: a.onExit != config.OnExitStop}
	if err := conn.Send(start, files...); err != nil {
		return nil, err
	}
	closeFiles()
	a.handed()
	for {
		m, received, err := conn.Receive()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case launch.Started:
			// From here on it may take as long as it wants.
			err = a.door.untimed(conn)
			a.components.commandStarted()
		case launch.Console:
			err = a.takeTerminal(received)
			received = nil
		case launch.Failed:
			a.log.WithField("status", m.Code).Warnf("%.300s", oneLine(m.Reason))
			return &launch.Exited{Status: m.Code}, nil
		case launch.Exited:
			return &m, nil
		default:
			err = fmt.Errorf("unexpected %T", m)
		}
		dropAll(received)
		if err != nil {
			return nil, err
		}
	}
}

// dropAll closes files that have been received.
func dropAll(files []*os.File) {
	for _, f := range files {
		launch.Drop(f)
	}
}

// takeTerminal accepts the master of the CMD's terminal. Anything may have
// been sent in its place.
func (a *app) takeTerminal(files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("terminal: %d descriptors", len(files))
	}
	return a.stdio.TakeTerminal(files[0])
}

// handed notes that the launcher has the CMD: it gets what has come before.
func (a *app) handed() {
	a.mu.Lock()
	a.phase = running
	a.mu.Unlock()
	a.wakeUp()
}

// pass sends the launcher of the CMD the signals that are kept for it, until
// it has left. It is the only one to wait for a launcher that does not read.
func (a *app) pass(conn *launch.Conn, left <-chan struct{}) {
	for {
		n := a.nextSignal()
		if n == 0 {
			select {
			case <-a.wake:
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

// nextSignal takes a signal for the CMD if it is running; else it is 0.
func (a *app) nextSignal() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.phase != running || len(a.pending) == 0 {
		return 0
	}
	n := a.pending[0]
	a.pending = a.pending[1:]
	return n
}

func (a *app) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// end notes how the CMD ended. If the init did not mean to stop it and the
// option on-exit does not say otherwise, or if the task is to stop, the
// container ends with it. stays tells that the launcher waits for what comes
// next. Without a launcher nothing can be started again.
func (a *app) end(e launch.Exited, lost bool, ran, pause time.Duration) (stays bool) {
	now := time.Now()
	a.mu.Lock()
	a.phase = idle
	a.result = &e
	goesOn := !a.stopping && !a.closed && (a.onExit == config.OnExitKeep || a.onExit == config.OnExitRestart && !lost)
	a.own = !e.Requested && !goesOn
	stop := a.own || a.stopping
	if stop {
		a.stopping = true
	}
	stays = goesOn && !e.Requested && !lost
	a.state.Running, a.state.Status, a.state.EndedAt = false, &e.Status, &now
	entry := a.log.WithField("status", e.Status).WithField("requested", e.Requested)
	if stays && a.onExit == config.OnExitRestart {
		at := now.Add(pause)
		a.state.RestartAt = &at
		entry = entry.WithField("restart-in", pause)
	}
	a.shown.put(a.state)
	a.mu.Unlock()
	entry.Info("command ended")
	switch {
	case stop:
		a.halt()
	case e.Status != 0 && !e.Requested:
		a.crashed(e, ran)
	}
	return stays
}

// signal delivers a signal that was sent to the task. The CMD gets it; one
// that asks to stop also brings the init down, after the CMD or at once if
// there is none.
func (a *app) signal(sig, halt syscall.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	stop := sig == halt || a.isStop(sig)
	if sig == halt {
		// Meant for the init; the CMD gets what asks any program to end.
		sig = unix.SIGTERM
	}
	if stop {
		a.stopping = true
	}
	switch {
	case a.phase != idle:
		return a.pend(sig)
	case stop:
		if !a.begun {
			a.stop = sig
		}
		a.halt()
	case a.stopping:
		return libcontainer.ErrNotRunning
	default:
		// The CMD is not there yet, or its service is being restarted.
		return a.pend(sig)
	}
	return nil
}

// pend keeps a signal for the CMD, as the kernel does for a process: one that
// is not queued is pending once. The caller holds mu.
func (a *app) pend(sig syscall.Signal) error {
	switch {
	case sig < realTime && slices.Contains(a.pending, int(sig)):
		return nil
	case len(a.pending) >= maxPending:
		return fmt.Errorf("%d signals wait for the command's launcher already: %w", maxPending, errdefs.ErrUnavailable)
	}
	a.pending = append(a.pending, int(sig))
	a.wakeUp()
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// waitForStop is the argument with which the launcher does not end with its
// component: some supervisors start again whatever ends.
const waitForStop = "wait"

// supervisor keeps a component of the host running. Like app it does
// everything in one loop.
type supervisor struct {
	conn    *launch.Conn
	shim    int32 // the descriptor of conn, -1 once it is of no use
	signals signals
	quiet   bool // nothing has happened while it waited last
	// released says that the pages of the launcher's own file have been let go
	// of and nothing has happened since.
	released bool
	order    launch.Run
	stdio    []*os.File
	limits   []*os.File
	syslog   syslog

	cmd       *command // nil while the component does not run
	started   time.Time
	stopping  bool
	killAt    time.Time
	restartAt time.Time
	delay     time.Duration
	status    int // how it ended last, or could not be started

	ready bool
	probe probe
}

// component runs a component as the shim says until the init says to stop, or
// until it has ended for good.
func component(name string, stay bool) int {
	if !slices.Equal(os.Environ(), runtimeEnv) {
		return restart()
	}
	setName("rich-launch")
	caught, err := catchSignals()
	if err != nil {
		return giveUp(err)
	}
	s := &supervisor{signals: caught, syslog: syslog{name: name, fd: -1}}
	status, err := s.connect(name)
	switch {
	case err != nil || s.order.Record.Args == nil:
	case s.stopping: // the init's word came together with the order
		_ = s.conn.Send(launch.ComponentExited{Again: -1, Requested: true})
	default:
		s.delay = s.order.Delay
		status = s.run()
	}
	if err != nil {
		complain(os.Stderr, fmt.Sprintf("component %s: %v", name, err))
	}
	for stay && !s.stopping {
		s.wait(-1)
	}
	return status
}

// connect gets the shim's order, which it may hold back for long. There is
// none if the shim refuses, or the init says to stop first.
func (s *supervisor) connect(name string) (status int, err error) {
	file, err := dialShim()
	if err != nil {
		return exitLauncher, err
	}
	s.shim = int32(file.Fd())
	s.conn = launch.NewConn(file, launch.MaxFromShim)
	err = s.conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleComponent})
	if err == nil {
		err = s.conn.Send(launch.Component{Name: name})
	}
	for greeted := false; err == nil && s.order.Record.Args == nil; {
		timeout := -1
		if s.stopping {
			timeout = 0 // what is there already is taken
		}
		if !s.wait(timeout) {
			if s.stopping {
				return 0, nil
			}
			continue
		}
		var m launch.Message
		var files []*os.File
		if m, files, err = s.conn.Receive(); err != nil {
			break
		}
		if !greeted {
			err, greeted = checkShim(m), true
			continue
		}
		switch m := m.(type) {
		case launch.Refuse:
			complain(os.Stderr, fmt.Sprintf("component %s: %s", name, m.Reason))
			s.shim = -1
			return 0, nil
		case launch.Limits:
			s.limits = files
		case launch.Run:
			if len(files) != 3 {
				err = errors.New("the shim sent no stdio")
			}
			s.order, s.stdio = m, files
		default:
			err = fmt.Errorf("the shim answered with %T", m)
		}
	}
	if err != nil {
		s.shim = -1
		return exitLauncher, fmt.Errorf("wait for the shim's order: %w", err)
	}
	return 0, nil
}

// wait waits for what comes first: a signal, a message, which it reports, the
// end of a process, or the timeout in ms.
func (s *supervisor) wait(timeout int) (message bool) {
	poll := []unix.PollFd{
		{Fd: int32(s.signals), Events: unix.POLLIN},
		{Fd: s.shim, Events: unix.POLLIN},
		{Fd: s.cmd.pollable(), Events: unix.POLLIN},
		{Fd: s.probe.cmd.pollable(), Events: unix.POLLIN},
	}
	n, err := unix.Poll(poll, timeout)
	for err == unix.EINTR {
		n, err = unix.Poll(poll, timeout) // else a message would be missed that came before the signal
	}
	// It may fail for want of memory: all is looked at again.
	s.quiet = n == 0 && err == nil
	for signal := s.signals.next(); signal != 0; signal = s.signals.next() {
		switch {
		case signal == syscall.SIGTERM:
			s.stop()
		case s.cmd != nil:
			s.cmd.kill(signal)
		}
	}
	return poll[1].Revents != 0
}

func (s *supervisor) stop() {
	if s.stopping {
		return
	}
	s.stopping = true
	if s.cmd != nil {
		s.cmd.kill(s.cmd.stopSignal)
		s.killAt = time.Now().Add(s.order.StopTimeout)
	}
}

// run starts the component, and again when it has ended, until that is over. It
// returns the last exit status.
func (s *supervisor) run() int {
	s.start()
	for s.cmd != nil || s.startsAgain() {
		if s.await() {
			s.collect()
			s.act()
		}
	}
	return s.status
}

// startsAgain tells of a component that has ended whether it is to run again.
func (s *supervisor) startsAgain() bool { return !s.restartAt.IsZero() && !s.stopping }

// await waits for what comes next, takes what the shim sends and reports
// whether there may be something to do. There is nothing when nothing has come
// for a while and nothing is due: then it lets go of memory.
func (s *supervisor) await() bool {
	timeout := s.timeout()
	idle := timeout < 0 && !s.released
	if idle {
		timeout = idleTimeout
	}
	if s.wait(timeout) {
		s.receive()
	}
	if idle && s.quiet {
		releaseFilePages()
		s.released = true
		return false
	}
	s.released = s.released && s.quiet
	return true
}

// collect takes note of the component's end.
func (s *supervisor) collect() {
	if s.cmd == nil {
		return
	}
	if ws, ended := s.cmd.collect(); ended {
		s.ended(ws)
	}
}

// act does what is due: it starts the component again, kills one that does not
// stop, or looks whether it is ready.
func (s *supervisor) act() {
	now := time.Now()
	switch {
	case s.cmd == nil:
		if s.startsAgain() && !now.Before(s.restartAt) {
			s.start()
		}
	case s.stopping:
		if now.After(s.killAt) {
			_ = unix.Kill(-s.cmd.pid, unix.SIGKILL)
			s.killAt = now.Add(time.Second)
		}
	case !s.ready:
		s.look()
	}
}

// timeout is how long, in ms, nothing has to be done, -1 for ever.
func (s *supervisor) timeout() int {
	var next time.Time
	switch {
	case s.cmd != nil && s.stopping:
		next = s.killAt
	case s.cmd != nil && !s.ready:
		next = s.probe.next
	case s.cmd == nil:
		next = s.restartAt
	}
	const noPidFD = 100
	switch {
	case next.IsZero() && s.cmd != nil && s.cmd.pidFD < 0:
		return noPidFD
	case next.IsZero():
		return -1
	}
	return int(max(0, time.Until(next).Milliseconds()+1))
}

// receive takes what the shim sends. A shim that goes away changes nothing.
func (s *supervisor) receive() {
	m, files, err := s.conn.Receive()
	for _, f := range files {
		f.Close()
	}
	if line, ok := m.(launch.Line); ok {
		s.syslog.write(line.Text)
	}
	if err != nil && !errors.Is(err, launch.ErrMalformed) {
		s.shim = -1
	}
}

// start starts the component.
func (s *supervisor) start() {
	s.status = 0
	s.restartAt = time.Time{}
	s.ready = false
	s.started = time.Now()
	cmd, failed, err := spawn(&s.order.Record, s.stdio, s.place)
	if err != nil {
		failed = &launch.Failed{Code: exitCannot, Reason: err.Error()}
	}
	if failed != nil {
		failed.Reason = fmt.Sprintf("exec %s: %s", quote(s.order.Record.Args[0]), failed.Reason)
		complain(s.stdio[2], failed.Reason)
		_ = s.conn.Send(*failed)
		s.ended(unix.WaitStatus(failed.Code << 8))
		return
	}
	s.cmd = cmd
	_ = s.conn.Send(launch.Started{PID: int32(cmd.pid)})
	s.probe = probe{next: time.Now()}
	s.look()
}

// place puts a process under the component's limits.
func (s *supervisor) place(pid int) error {
	for _, f := range s.limits {
		if _, err := unix.Write(int(f.Fd()), strconv.AppendInt(nil, int64(pid), 10)); err != nil {
			return fmt.Errorf("join the cgroup of the limits: %w", err)
		}
	}
	return nil
}

// ended reports how the component ended and decides what comes next.
func (s *supervisor) ended(ws unix.WaitStatus) {
	s.cmd = nil
	s.probe.stop()
	s.status = int(launch.ExitStatus(syscall.WaitStatus(ws)))
	again := s.order.Restart == launch.RestartAlways || s.order.Restart == launch.RestartOnFailure && s.status != 0
	report := launch.ComponentExited{Again: -1, Requested: s.stopping}
	if again && !s.stopping {
		if time.Since(s.started) >= s.order.MaxDelay {
			s.delay = s.order.Delay
		}
		s.restartAt = time.Now().Add(s.delay)
		report.Again = int32(s.delay.Milliseconds())
		s.delay = min(2*s.delay, s.order.MaxDelay)
	}
	if ws.Signaled() {
		report.Signal = uint32(ws.Signal())
	} else {
		report.Code = uint32(ws.ExitStatus())
	}
	_ = s.conn.Send(report)
}

// look finds out whether the component is ready, and reports it once.
func (s *supervisor) look() {
	if s.probe.succeeds(s) {
		s.ready = true
		_ = s.conn.Send(launch.Ready{})
	}
}

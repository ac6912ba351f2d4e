package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// reportTimeout, in seconds, bounds what a shim that does not read can hold
// the launcher up: its init waits for it.
const reportTimeout = 5

// idleTimeout, in ms, is how long nothing must have happened before memory is
// given back.
const idleTimeout = 1000

// app starts the CMD as the shim says, stands in for it towards the init and
// for the init towards it, and ends with its exit status. Beside it run the
// components of these names, which have no init to run them.
func app(names []string) int {
	if !slices.Equal(os.Environ(), runtimeEnv) {
		return restart()
	}
	signals, launchers, file, err := begin(names)
	defer stopLaunchers(launchers)
	if err != nil {
		return giveUp(err)
	}
	conn := launch.NewConn(file, launch.MaxFromShim)
	if err := greet(conn, launch.RoleApp); err != nil {
		status := giveUp(err)
		tellFailed()
		return status
	}
	m, stdio, err := conn.Receive()
	var early []syscall.Signal
	if _, held := m.(launch.Hold); held {
		var stopped bool
		if early, stopped = awaitOrder(file, signals); stopped {
			_ = conn.Send(launch.Exited{Status: 128 + uint32(syscall.SIGTERM), Requested: true})
			return 0
		}
		m, stdio, err = conn.Receive()
	}
	if err != nil {
		return giveUp(fmt.Errorf("wait for the shim's order: %w", err))
	}
	switch m := m.(type) {
	case launch.Refuse:
		complain(os.Stderr, m.Reason)
		return 0
	case launch.Start:
		for {
			status, requested := once(conn, file, signals, &m, stdio, early)
			early = nil
			if !m.Stay || requested {
				return status
			}
			var again bool
			if m, stdio, again = stay(conn, file, signals); !again {
				_ = conn.Send(launch.Exited{Status: uint32(status), Requested: true})
				return 0
			}
		}
	default:
		complain(os.Stderr, fmt.Sprintf("the shim answered with %T", m))
		return exitLauncher
	}
}

// begin does what comes first for a CMD with components of these names: it
// takes over the signals, starts the components' launchers and connects to the
// shim. The launchers have to be stopped after an error as well.
func begin(names []string) (caught signals, launchers []int, shim *os.File, err error) {
	setName("rich-launch")
	if caught, err = catchSignals(); err != nil {
		return caught, nil, nil, err
	}
	if launchers, err = startLaunchers(names); err != nil {
		return caught, launchers, nil, err
	}
	shim, err = dialShim()
	return caught, launchers, shim, err
}

// giveUp says why and returns the launcher's own exit status.
func giveUp(err error) int {
	complain(os.Stderr, err.Error())
	return exitLauncher
}

// awaitOrder waits for the shim's order, which holds the CMD back. It returns the signals that are for the CMD, and reports whether the
// init has asked to stop instead.
func awaitOrder(shim *os.File, s signals) (early []syscall.Signal, stopped bool) {
	poll := []unix.PollFd{{Fd: int32(shim.Fd()), Events: unix.POLLIN}, {Fd: int32(s), Events: unix.POLLIN}}
	for {
		_, _ = unix.Poll(poll, -1) // it fails with EINTR
		if poll[0].Revents != 0 {
			return early, false
		}
		for signal := s.next(); signal != 0; signal = s.next() {
			if signal == syscall.SIGTERM {
				return nil, true
			}
			early = append(early, signal)
		}
	}
}

// once starts the CMD, follows it to its end and reports that. requested
// tells that the init has asked for it. early are signals that have come
// before.
//
// A report that cannot be sent changes nothing: the CMD is not for the shim's
// sake.
func once(conn *launch.Conn, shim *os.File, s signals, m *launch.Start, stdio []*os.File, early []syscall.Signal) (status int, requested bool) {
	cmd, failed := start(conn, &m.Record, stdio)
	if failed != nil {
		_ = conn.Send(*failed)
		return int(failed.Code), false
	}
	_ = conn.Send(launch.Started{PID: int32(cmd.pid)})
	for _, signal := range early {
		cmd.pass(signal)
	}
	code := cmd.supervise(conn, shim, s)
	_ = conn.Send(launch.Exited{Status: code, Requested: cmd.requested})
	return int(code), cmd.requested
}

// restart runs the verb again with the launcher's own environment, which the
// Go runtime reads when it starts. A TERM that comes before catchSignals, within
// the first milliseconds, ends the launcher, as it ends any program.
func restart() int {
	err := execve("/proc/self/exe", os.Args, runtimeEnv)
	complain(os.Stderr, fmt.Sprintf("exec /proc/self/exe: %v", err))
	return exitLauncher
}

// setName gives the process the name that ps shows (PR_SET_NAME, cut to 15
// bytes): having started itself again from /proc/self/exe it is called "exe".
func setName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}

// command is a CMD that runs.
type command struct {
	pid        int
	pidFD      int // a pidfd, or -1 on Linux before 5.2
	stopSignal syscall.Signal
	requested  bool // the init has asked for a stop
	group      bool // signals go to its process group
}

// start starts the CMD and returns when it has been exec'ed. If it cannot be,
// the reason has been printed where its stderr goes.
func start(conn *launch.Conn, r *launch.Record, stdio []*os.File) (*command, *launch.Failed) {
	program := ""
	if len(r.Args) > 0 {
		program = r.Args[0]
	}
	stderr := os.Stderr
	fail := func(code uint32, reason string) *launch.Failed {
		reason = fmt.Sprintf("exec %s: %s", quote(program), reason)
		complain(stderr, reason)
		return &launch.Failed{Code: code, Reason: reason}
	}

	if r.Terminal {
		master, slave, err := openTerminal(r.Rows, r.Cols)
		if err != nil {
			return nil, fail(exitCannot, err.Error())
		}
		// The slave stays open until the CMD has it, so that the master
		// never sees a hangup in between, and not a moment longer: the
		// hangup at the CMD's end tells the shim that all output is there.
		stdio = []*os.File{slave, slave, slave}
		err = conn.Send(launch.Console{}, master)
		master.Close()
		if err != nil {
			return nil, fail(exitCannot, err.Error())
		}
	}
	if len(stdio) != 3 {
		return nil, fail(exitCannot, "the shim sent no stdio")
	}
	stderr = stdio[2]
	defer func() {
		for _, f := range stdio {
			f.Close()
		}
	}()

	cmd, failed, err := spawn(r, stdio, nil)
	if err != nil {
		return nil, fail(exitCannot, err.Error())
	}
	if failed != nil {
		return nil, fail(failed.Code, failed.Reason)
	}
	return cmd, nil
}

// spawn runs stageTwo, gives it the record and waits until it has exec'ed the
// CMD, which closes the socket, or says that it cannot. place, if not nil, is
// called with the process before it does anything.
func spawn(r *launch.Record, stdio []*os.File, place func(pid int) error) (*command, *launch.Failed, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	stage := launch.NewConn(os.NewFile(uintptr(pair[0]), "stage"), launch.MaxFromContainer)
	defer stage.Close()
	cmd := &command{pidFD: -1, stopSignal: syscall.Signal(r.StopSignal)}
	if cmd.stopSignal == 0 {
		cmd.stopSignal = syscall.SIGTERM
	}
	cmd.pid, err = syscall.ForkExec("/proc/self/exe", []string{os.Args[0], stageTwo}, &syscall.ProcAttr{
		Env:   runtimeEnv,
		Files: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), uintptr(pair[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: r.Terminal, Ctty: 0, PidFD: &cmd.pidFD},
	})
	unix.Close(pair[1])
	if err != nil {
		return nil, nil, fmt.Errorf("fork: %w", err)
	}
	if place != nil {
		err = place(cmd.pid)
	}
	if err == nil {
		err = stage.Send(launch.Start{Record: *r})
	}
	if err == nil {
		var m launch.Message
		m, _, err = stage.Receive()
		if errors.Is(err, io.EOF) {
			return cmd, nil, nil
		}
		if failed, ok := m.(launch.Failed); ok {
			cmd.wait(0)
			return nil, &failed, nil
		}
	}
	_ = unix.Kill(cmd.pid, unix.SIGKILL)
	cmd.wait(0)
	return nil, nil, err
}

// supervise passes signals on until the CMD ends, and returns its status.
//
// Everything happens in this one thread, in one loop, so that no signal is
// sent to the CMD's pid after its end has been collected. A shim that goes
// away changes nothing.
func (c *command) supervise(conn *launch.Conn, shim *os.File, s signals) uint32 {
	poll := []unix.PollFd{
		{Fd: int32(c.pidFD), Events: unix.POLLIN},
		{Fd: int32(s), Events: unix.POLLIN},
		{Fd: int32(shim.Fd()), Events: unix.POLLIN},
	}
	resident := true
	for {
		timeout := -1
		switch {
		case c.pidFD < 0:
			timeout = 100 // nothing tells of the CMD's end
		case resident:
			timeout = idleTimeout
		}
		// It fails with EINTR or for want of memory, neither of which is a
		// reason to leave the CMD alone.
		n, err := unix.Poll(poll, timeout)
		if n == 0 && err == nil && resident {
			releaseFilePages()
			resident = false
			continue // at once: all that runs in between comes back
		}
		resident = resident || n > 0
		for signal := s.next(); signal != 0; signal = s.next() {
			c.pass(signal)
		}
		if poll[2].Revents != 0 {
			m, _, err := conn.Receive()
			if order, ok := m.(launch.Signal); ok {
				c.kill(syscall.Signal(order.Number))
			}
			if err != nil && !errors.Is(err, launch.ErrMalformed) {
				poll[2] = unix.PollFd{Fd: -1}
			}
		}
		if status, ended := c.wait(unix.WNOHANG); ended {
			// A stop that came together with the end was the reason for it.
			for signal := s.next(); signal != 0; signal = s.next() {
				c.requested = c.requested || signal == syscall.SIGTERM
			}
			return status
		}
	}
}

// pass gives the CMD a signal of the init. TERM is how an init asks for a
// stop, whatever the image's own stop signal is.
func (c *command) pass(signal syscall.Signal) {
	if signal == syscall.SIGTERM {
		c.requested = true
		signal = c.stopSignal
	}
	c.kill(signal)
}

// kill sends the CMD a signal. Root without CAP_KILL may not send it to another
// user's process; there is nobody to tell.
func (c *command) kill(signal syscall.Signal) {
	// The group is gone if the CMD has moved itself to another.
	if !c.group || unix.Kill(-c.pid, signal) == unix.ESRCH {
		_ = unix.Kill(c.pid, signal)
	}
}

// wait collects the CMD's end, and no other child's. ended is false only if
// options holds WNOHANG and the CMD runs.
func (c *command) wait(options int) (status uint32, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(c.pid, &ws, options, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			// ECHILD, which cannot be; there is nothing left to wait for.
			return exitLauncher, true
		}
		return launch.ExitStatus(syscall.WaitStatus(ws)), pid == c.pid
	}
}

package main

import (
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// reportTimeout, in seconds, bounds what a shim that does not read can hold
// the launcher up: its init waits for it.
const reportTimeout = 5

// idleTimeout, in ms, is how long nothing must have happened before memory is
// given back.
const idleTimeout = 1000

// app starts the command as the shim says, stands in for it towards the init and
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
	if err := greet(conn, launch.RoleService); err != nil {
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

// begin does what comes first for a command with components of these names: it
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

// awaitOrder waits for the shim's order, which holds the command back. It returns the signals that are for the command, and reports whether the
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

// once starts the command, follows it to its end and reports that. requested
// tells that the init has asked for it. early are signals that have come
// before.
//
// A report that cannot be sent changes nothing: the command is not for the shim's
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

// start starts the command and returns when it has been exec'ed. If it cannot be,
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
		// The slave stays open until the command has it, so that the master
		// never sees a hangup in between, and not a moment longer: the
		// hangup at the command's end tells the shim that all output is there.
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

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// command is a child that runs: the command, a component, or what finds out whether
// that is ready.
type command struct {
	pid        int
	pidFD      int // a pidfd, or -1 on Linux before 5.2
	stopSignal syscall.Signal
	requested  bool // the init has asked for a stop
	group      bool // signals go to its process group
}

// spawn runs stageTwo, gives it the record and waits until it has exec'ed the
// command, which closes the socket, or says that it cannot. place, if not nil, is
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

// supervise passes signals on until the command ends, and returns its status.
//
// Everything happens in this one thread, in one loop, so that no signal is
// sent to the command's pid after its end has been collected. A shim that goes
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
			timeout = 100 // nothing tells of the command's end
		case resident:
			timeout = idleTimeout
		}
		// It fails with EINTR or for want of memory, neither of which is a
		// reason to leave the command alone.
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

// pass gives the command a signal of the init. TERM is how an init asks for a
// stop, whatever the image's own stop signal is.
func (c *command) pass(signal syscall.Signal) {
	if signal == syscall.SIGTERM {
		c.requested = true
		signal = c.stopSignal
	}
	c.kill(signal)
}

// kill sends the command a signal. Root without CAP_KILL may not send it to another
// user's process; there is nobody to tell.
func (c *command) kill(signal syscall.Signal) {
	// The group is gone if the command has moved itself to another.
	if !c.group || unix.Kill(-c.pid, signal) == unix.ESRCH {
		_ = unix.Kill(c.pid, signal)
	}
}

// wait collects the command's end, and no other child's. ended is false only if
// options holds WNOHANG and the command runs.
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

// pollable is the descriptor that tells of a command's end.
func (c *command) pollable() int32 {
	if c == nil {
		return -1
	}
	return int32(c.pidFD)
}

// collect tells whether the command has ended, and how. What it leaves in its
// process group goes with it: it would be in the way of the next start.
func (c *command) collect() (ws unix.WaitStatus, ended bool) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo == 0 {
		return 0, false
	}
	// Its pid, and so its group, is not given away while it is a zombie.
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(c.pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if c.pidFD >= 0 {
		unix.Close(c.pidFD)
	}
	return ws, true
}

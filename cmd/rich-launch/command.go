package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// beside runs the command as the child of dumb-init that it would be itself if
// there were no components: with the streams and the terminal it inherits,
// signals for its process group, and its exit status. The components' own
// launchers are its children too.
func beside(names []string) int {
	if !slices.Equal(os.Environ(), runtimeEnv) {
		return restart()
	}
	if err := giveUpTerminal(); err != nil {
		return giveUp(err)
	}
	caught, launchers, file, err := begin(names)
	defer stopLaunchers(launchers)
	if err != nil {
		return giveUp(err)
	}
	conn := launch.NewConn(file, launch.MaxFromShim)
	record, status := order(conn, file, caught)
	if record == nil {
		return status
	}
	cmd, failed, err := spawn(record, []*os.File{os.Stdin, os.Stdout, os.Stderr}, nil)
	if err != nil {
		failed = &launch.Failed{Code: exitCannot, Reason: err.Error()}
	}
	if failed != nil {
		complain(os.Stderr, fmt.Sprintf("exec %s: %s", quote(record.Args[0]), failed.Reason))
		return int(failed.Code)
	}
	cmd.group = true
	_ = conn.Send(launch.Started{PID: int32(cmd.pid)})
	return int(cmd.supervise(conn, file, caught))
}

// order gets the record of the command, or the exit status if there is to be none.
func order(conn *launch.Conn, file *os.File, caught signals) (*launch.Record, int) {
	if err := conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleChild}); err != nil {
		complain(os.Stderr, err.Error())
		return nil, exitLauncher
	}
	poll := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}, {Fd: int32(caught), Events: unix.POLLIN}}
	for greeted := false; ; {
		if _, err := unix.Poll(poll, -1); err != nil {
			continue // EINTR
		}
		for s := caught.next(); s != 0; s = caught.next() {
			if endsByDefault(s) {
				// As it would have ended the command.
				return nil, 128 + int(s)
			}
		}
		if poll[0].Revents == 0 {
			continue
		}
		m, files, err := conn.Receive()
		for _, f := range files {
			f.Close()
		}
		if !greeted && err == nil {
			if err = checkShim(m); err != nil {
				return nil, giveUp(err)
			}
			greeted = true
			continue
		}
		switch m := m.(type) {
		case launch.Refuse:
			complain(os.Stderr, m.Reason)
			return nil, exitLauncher
		case launch.Start:
			return &m.Record, 0
		}
		if err == nil {
			err = fmt.Errorf("it answered with %T", m)
		}
		complain(os.Stderr, fmt.Sprintf("wait for the shim's order: %v", err))
		return nil, exitLauncher
	}
}

// endsByDefault tells whether a signal ends a process that does not handle it
// (signal(7)).
func endsByDefault(s syscall.Signal) bool {
	return !slices.Contains([]syscall.Signal{
		syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGCONT,
		syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
	}, s)
}

// giveUpTerminal makes the terminal that dumb-init gave its child free to
// become the command's controlling one.
func giveUpTerminal() error {
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
		return nil // no terminal
	}
	// The kernel sends HUP to the foreground group, which is the launcher
	// alone.
	signal.Ignore(syscall.SIGHUP)
	err := unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
	if err != nil && !errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("give up the terminal: %w", err)
	}
	return nil
}

// startLaunchers starts a launcher for each component, in a session of its
// own so that no signal for the command reaches it.
func startLaunchers(names []string) (pids []int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	for _, name := range names {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], "component", name}, &syscall.ProcAttr{
			Env:   runtimeEnv,
			Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			return pids, fmt.Errorf("start the launcher of component %s: %w", name, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// stopLaunchers stops the components after the command, in order, so that one can
// still deliver what the command said last. Each has its own time limit.
func stopLaunchers(pids []int) {
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
	deadline := time.Now().Add(stopTimeout)
	for _, pid := range pids {
		for time.Now().Before(deadline) {
			var ws unix.WaitStatus
			if got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); got == pid || err == unix.ECHILD {
				break
			}
			time.Sleep(stopPoll)
		}
	}
}

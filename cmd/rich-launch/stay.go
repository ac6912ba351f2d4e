package main

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// stay waits, with no command, for the shim to order the next start. again is
// false if the init asks for a stop instead.
//
// A shim that goes away changes nothing: the init goes on to have its service.
func stay(conn *launch.Conn, shim *os.File, s signals) (m launch.Start, stdio []*os.File, again bool) {
	releaseFilePages()
	poll := []unix.PollFd{
		{Fd: int32(s), Events: unix.POLLIN},
		{Fd: int32(shim.Fd()), Events: unix.POLLIN},
	}
	for {
		// Other signals than TERM are for a command: there is none.
		for signal := s.next(); signal != 0; signal = s.next() {
			if signal == syscall.SIGTERM {
				return launch.Start{}, nil, false
			}
		}
		if poll[1].Revents != 0 {
			m, stdio, err := conn.Receive()
			if order, ok := m.(launch.Start); ok {
				return order, stdio, true
			}
			if err != nil && !errors.Is(err, launch.ErrMalformed) {
				poll[1] = unix.PollFd{Fd: -1}
			}
		}
		// EINTR and a want of memory are no reason to leave.
		_, _ = unix.Poll(poll, -1)
	}
}

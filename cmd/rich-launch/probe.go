package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// probePause lies between two looks at a component that is not ready.
	probePause = 200 * time.Millisecond
	// probeTimeout bounds a command that finds out, and connectTimeout a
	// connection to a port.
	probeTimeout   = 10 * time.Second
	connectTimeout = 1 // s
)

// probe finds out whether a component is ready.
type probe struct {
	next   time.Time // when to look
	cmd    *command  // nil while no command runs
	killAt time.Time // of the command
}

// succeeds takes one look, or goes on with one.
func (p *probe) succeeds(s *supervisor) bool {
	now := time.Now()
	switch {
	case len(s.order.Ready) > 0:
		return p.command(s, now)
	case s.order.ReadyPort != 0:
		if now.Before(p.next) {
			return false
		}
		p.next = now.Add(probePause)
		return accepts(int(s.order.ReadyPort))
	}
	return true
}

// command runs the command that finds out, as the component is run.
func (p *probe) command(s *supervisor, now time.Time) bool {
	if p.cmd == nil {
		if now.Before(p.next) {
			return false
		}
		p.next = now.Add(probePause)
		record := s.order.Record
		record.Args = s.order.Ready
		cmd, failed, err := spawn(&record, s.stdio, s.place)
		if err != nil || failed != nil {
			return false
		}
		p.cmd, p.killAt = cmd, now.Add(probeTimeout)
	}
	ws, ended := p.cmd.collect()
	if ended {
		p.cmd = nil
		return ws.Exited() && ws.ExitStatus() == 0
	}
	if now.After(p.killAt) {
		_ = unix.Kill(-p.cmd.pid, unix.SIGKILL)
	}
	p.next = now.Add(probePause)
	return false
}

// stop ends the command with the component.
func (p *probe) stop() {
	if p.cmd != nil {
		_ = unix.Kill(-p.cmd.pid, unix.SIGKILL)
		for {
			if _, ended := p.cmd.collect(); ended {
				break
			}
			time.Sleep(time.Millisecond)
		}
		p.cmd = nil
	}
}

// accepts tells whether a TCP port accepts connections at a loopback address.
// It does without package net, which would double the launcher.
func accepts(port int) bool {
	return connects(unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}) ||
		connects(unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}})
}

func connects(family int, to unix.Sockaddr) bool {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	socket := os.NewFile(uintptr(fd), "probe")
	defer socket.Close()
	// It bounds connect(2), too (socket(7)).
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: connectTimeout}); err != nil {
		return false
	}
	return unix.Connect(fd, to) == nil
}

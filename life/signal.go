package life

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
)

const (
	// maxPending bounds the signals kept for the command, as
	// RLIMIT_SIGPENDING bounds them in the kernel (getrlimit(2)).
	maxPending = 64
	// realTime is the first of the signals that are queued, each as often as
	// it is sent (signal(7)).
	realTime = 32
)

// ErrOver says that a signal has come after the end of the command, and while
// the rest is being stopped.
var ErrOver = fmt.Errorf("the command has ended: %w", errdefs.ErrNotFound)

// Signal is told when a signal other than 0 was sent to the task.
func (l *Life) Signal(sig syscall.Signal) (do Actions, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sig == unix.SIGKILL {
		l.killed, l.slain = true, l.slain || !l.gone
		return Actions{CallOff: true, Kill: true, Abort: true}, nil
	}
	stop := l.stops(sig)
	if stop {
		l.asked, do.CallOff = true, true
	}
	switch {
	case l.Shape.HasInit() && !l.started:
		// There is nobody yet who could handle a signal.
		if l.Shape == initmode.ServiceOfInit {
			l.early, l.stopping = sig, true
		}
		do.Kill = true
	case l.Shape == initmode.ServiceOfInit:
		err = l.signalCommand(sig, stop, &do)
	case l.Shape == initmode.InitItself && stop:
		l.halt(&do)
	case l.Shape == initmode.ChildOfReaper && l.started:
		do.Forward = sig
	default:
		do.Signal = sig
	}
	return do, err
}

// signalCommand is Signal for a command that is a service. The command gets the
// signal; one that asks to stop also brings the init down, after the command or
// at once if there is none.
func (l *Life) signalCommand(sig syscall.Signal, stop bool, do *Actions) error {
	if sig == l.Halt {
		// Meant for the init; the command gets what asks any program to end.
		sig = unix.SIGTERM
	}
	l.stopping = l.stopping || stop
	switch {
	case l.phase != idle:
		return l.pend(sig, do)
	case stop:
		if !l.begun {
			l.early = sig
		}
		l.halt(do)
		return nil
	case l.stopping:
		return ErrOver
	}
	// The command is not there yet, or its service is being restarted.
	return l.pend(sig, do)
}

// pend keeps a signal for the command, as the kernel does for a process: one that
// is not queued is pending once.
func (l *Life) pend(sig syscall.Signal, do *Actions) error {
	switch {
	case sig < realTime && slices.Contains(l.pending, int(sig)):
		return nil
	case len(l.pending) >= maxPending:
		return fmt.Errorf("%d signals wait for the command's launcher already: %w", maxPending, errdefs.ErrUnavailable)
	}
	l.pending = append(l.pending, int(sig))
	do.Wake = true
	return nil
}

// NextSignal takes a signal for the command if it is with a launcher; else it is
// 0.
func (l *Life) NextSignal() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase != handed || len(l.pending) == 0 {
		return 0
	}
	n := l.pending[0]
	l.pending = l.pending[1:]
	return n
}

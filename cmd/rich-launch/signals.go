package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the greatest signal number.
const lastSignal = 64

// sigaction sets a signal's disposition behind the Go runtime's back. Of the
// kernel's struct sigaction only the first word is used: SIG_DFL or SIG_IGN,
// no flags, no restorer, no mask.
func sigaction(signal int, handler uintptr) {
	act := [4]uint64{uint64(handler)}
	// Fails for KILL and STOP, whose disposition is fixed.
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
}

const (
	sigDefault = 0 // SIG_DFL
	sigIgnore  = 1 // SIG_IGN
)

// defaultSignals gives every signal its default disposition. An exec does that
// to handlers but not to ignored signals, and systemd starts services with
// PIPE ignored.
func defaultSignals() {
	for signal := 1; signal <= lastSignal; signal++ {
		sigaction(signal, sigDefault)
	}
}

// signals is the reading end of a pipe with a byte for every signal that the
// init has sent and nobody has read yet. Unlike a channel it can be waited for
// together with the shim's socket and the command's end.
type signals int

// catchSignals catches all signals from now on. A signalfd(2) could not: the
// runtime lets no thread of its own block TERM, HUP, INT, QUIT and ABRT.
//
// PROF and 32 to 34 cannot be passed on, the runtime keeps them for profiles
// and for C libraries. For the latter it has no handler: they are ignored lest
// they end the launcher. CHLD tells of the command's end and is dropped.
func catchSignals() (signals, error) {
	for signal := 32; signal <= 34; signal++ {
		sigaction(signal, sigIgnore)
	}
	caught := make(chan os.Signal, lastSignal)
	signal.Notify(caught)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(pipe[0], true); err != nil {
		return -1, fmt.Errorf("set pipe to non-blocking mode: %w", err)
	}
	go func() {
		for s := range caught {
			if s != syscall.SIGCHLD {
				_, _ = unix.Write(pipe[1], []byte{byte(s.(syscall.Signal))})
			}
		}
	}()
	return signals(pipe[0]), nil
}

// next returns a signal that has come, or 0 if there is none.
func (s signals) next() syscall.Signal {
	var b [1]byte
	for {
		n, err := unix.Read(int(s), b[:])
		if err == unix.EINTR {
			continue
		}
		if n != len(b) {
			return 0
		}
		return syscall.Signal(b[0])
	}
}

// clearSignalMask lets all signals in, to the calling thread.
func clearSignalMask() error {
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return fmt.Errorf("clear signal mask: %w", err)
	}
	return nil
}

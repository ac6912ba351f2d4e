package life

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

const (
	// statusReboot tells a restart policy to start the container again
	// (systemd-nspawn(1), EXIT STATUS).
	statusReboot = 133
	// statusNotStarted says that the container failed before its command ran.
	statusNotStarted = 125
	// StatusKilled is that of a process killed by SIGKILL.
	StatusKilled = 128 + uint32(unix.SIGKILL)
)

// NeedsOOM reports whether the verdict on what is known depends on whether the
// kernel has killed processes of the container for want of memory.
func (l *Life) NeedsOOM() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.verdict == nil && l.exitStatus() == StatusKilled
}

// Conclude judges how the command ended, by what is known: status and reason
// together. It stays at that once somebody has been told, be it with tell, or of
// a crash that ends the container: that is reported once, and crashed says that
// it is now. oom is whether the kernel has killed processes of the container for
// want of memory. Before pid 1 is gone only the end of a command that is its
// service can be judged.
func (l *Life) Conclude(now time.Time, oom, tell bool) (e Ending, crashed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verdict == nil {
		e = Ending{Code: l.exitStatus()}
		e.Reason = l.reason(e, oom)
		if !l.since.IsZero() {
			e.Duration = now.Sub(l.since)
		}
	} else {
		e = *l.verdict
	}
	crashed = !l.reported && e.crash()
	if crashed || tell {
		l.reported = l.reported || crashed
		l.verdict = &e
	}
	return e, crashed
}

// Unexplained reports whether the init ended before it started the command, and
// nobody has said why.
func (l *Life) Unexplained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Shape == initmode.ServiceOfInit && l.result == nil && l.early == 0 && !l.slain
}

// exitStatus is the exit status of the task. The init's own tells little: the
// kernel makes a reboot in a pid namespace look like death by SIGHUP and
// halting like SIGINT (reboot(2)), and without CAP_SYS_BOOT both look like
// success.
func (l *Life) exitStatus() uint32 {
	switch {
	case l.prestart || l.unfit || l.Shape.HasInit() && !l.slain && l.component != "":
		return statusNotStarted
	case !l.Shape.HasInit():
		return launch.ExitStatus(l.status)
	case l.result != nil && l.own:
		return l.result.Status
	case l.slain:
		return StatusKilled
	case l.rebooting || l.diedOf(unix.SIGHUP):
		return statusReboot
	case l.result != nil:
		return l.result.Status
	case l.early != 0:
		return 128 + uint32(l.early)
	}
	return l.initStatus()
}

// initStatus is that of an init which is the command, or has never run it.
func (l *Life) initStatus() uint32 {
	down := l.halted || l.diedOf(unix.SIGINT)
	switch {
	case down && l.Shape == initmode.InitItself:
		return 0
	case l.Shape == initmode.ServiceOfInit && (down || launch.ExitStatus(l.status) == 0):
		return statusNotStarted
	}
	return launch.ExitStatus(l.status)
}

func (l *Life) diedOf(sig syscall.Signal) bool {
	return l.status.Signaled() && l.status.Signal() == sig
}

// reason is why the command ended with that status.
func (l *Life) reason(e Ending, oom bool) string {
	switch {
	case l.prestart:
		return ReasonPrestart
	case l.refused || l.unfit:
		return ReasonStart
	case l.slain:
		return ReasonKill
	case l.component != "":
		return ReasonComponent
	case e.Code == StatusKilled && oom:
		return ReasonOOM
	case l.asked:
		return ReasonStop
	case e.Code == statusReboot && (l.result == nil || l.result.Status != statusReboot):
		return ReasonReboot
	case l.result != nil && l.result.Requested:
		return ReasonHalt
	case e.Signal() != "":
		return ReasonSignal
	}
	return ReasonExit
}

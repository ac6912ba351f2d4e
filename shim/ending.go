package shim

import (
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

const (
	// statusReboot tells a restart policy to start the container again
	// (systemd-nspawn(1), EXIT STATUS).
	statusReboot = 133
	// statusNotStarted says that the container failed before its CMD ran.
	statusNotStarted = 125
	// statusKilled is that of a process killed by SIGKILL.
	statusKilled = 128 + uint32(unix.SIGKILL)
)

// ending is all that is known about the end of a container when pid 1 is
// gone.
type ending struct {
	init    syscall.WaitStatus
	full    bool           // pid 1 is an init that halts and reboots
	service bool           // the CMD was a service of it
	app     *launch.Exited // how the CMD ended last
	own     bool           // that end was to be the end of the container
	stop    syscall.Signal // asked the container to stop before there was a CMD
	killed  bool           // the task was sent SIGKILL
	reboot  bool           // the init announced a reboot
	unfit   bool           // the launcher was of another version
	halted  bool           // the init reported that it had halted
	// unprepared says that a prestart hook failed, or a component that is
	// required, or that the launcher is unfit.
	unprepared bool
}

// status is the exit status of the task. The init's own tells little: the
// kernel makes a reboot in a pid namespace look like death by SIGHUP and
// halting like SIGINT (reboot(2)), and without CAP_SYS_BOOT both look like
// success.
func (e ending) status() uint32 {
	if e.unprepared {
		return statusNotStarted
	}
	if !e.full {
		return launch.ExitStatus(e.init)
	}
	rebooted := e.reboot || e.init.Signaled() && e.init.Signal() == unix.SIGHUP
	halted := e.halted || e.init.Signaled() && e.init.Signal() == unix.SIGINT
	switch {
	case e.app != nil && e.own:
		return e.app.Status
	case e.killed:
		return statusKilled
	case rebooted:
		return statusReboot
	case e.app != nil:
		return e.app.Status
	case e.stop != 0:
		return 128 + uint32(e.stop)
	case halted && !e.service:
		return 0
	case e.service && (halted || e.init.Exited() && e.init.ExitStatus() == 0):
		return statusNotStarted
	}
	return launch.ExitStatus(e.init)
}

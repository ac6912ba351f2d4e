package life

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Reasons of an Ending.
const (
	ReasonExit     = "exit"            // the command ended by itself
	ReasonSignal   = "signal"          // a signal ended the command
	ReasonOOM      = "oom"             // the kernel killed the command for want of memory
	ReasonStop     = "stop"            // the task was asked to stop
	ReasonKill     = "kill"            // the task was sent SIGKILL
	ReasonHalt     = "halt"            // the init was halted from inside
	ReasonReboot   = "reboot"          // the init was rebooted from inside
	ReasonPrestart = "prestart-failed" // a prestart hook failed, the command was not started
	ReasonStart    = "start-failed"    // the command could not be started
	ReasonLost     = "lost"            // the shim was killed: nothing is known
	// ReasonComponent is that of a required component that was missing: the
	// command was not started.
	ReasonComponent = "component-failed"
)

// Ending is how the command ended.
type Ending struct {
	// Code is the exit status of the task.
	Code   uint32 `json:"code"`
	Reason string `json:"reason"`
	// Duration is the time from the command's first start; 0 if it never started.
	Duration time.Duration `json:"duration"`
}

// Signal is the name of the signal that the code stands for, as a shell has
// it, or empty.
func (e Ending) Signal() string {
	if e.Code <= 128 || e.Code > 128+64 || e.Reason == ReasonReboot {
		return ""
	}
	n := unix.Signal(e.Code - 128)
	if name := unix.SignalName(n); name != "" {
		return name
	}
	return strconv.Itoa(int(n))
}

// Seconds is the duration with milliseconds.
func (e Ending) Seconds() string { return fmt.Sprintf("%.3f", e.Duration.Seconds()) }

// crash reports whether it is one: the command ended by a signal that nobody
// sent to the task, for want of memory, or with a status other than 0, or
// something kept it from being started.
func (e Ending) crash() bool {
	switch e.Reason {
	case ReasonSignal, ReasonOOM, ReasonPrestart, ReasonComponent, ReasonStart:
		return true
	case ReasonExit:
		return e.Code != 0
	}
	return false
}

package hooks

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Reasons of an Ending.
const (
	ReasonExit     = "exit"            // the CMD ended by itself
	ReasonSignal   = "signal"          // a signal ended the CMD
	ReasonOOM      = "oom"             // the kernel killed the CMD for want of memory
	ReasonStop     = "stop"            // the task was asked to stop
	ReasonKill     = "kill"            // the task was sent SIGKILL
	ReasonHalt     = "halt"            // the init was halted from inside
	ReasonReboot   = "reboot"          // the init was rebooted from inside
	ReasonPrestart = "prestart-failed" // a prestart hook failed, the CMD was not started
	ReasonStart    = "start-failed"    // the CMD could not be started
	ReasonLost     = "lost"            // the shim was killed: nothing is known
	// ReasonComponent is that of a required component that was missing: the
	// CMD was not started.
	ReasonComponent = "component-failed"
)

// Ending is how the CMD ended.
type Ending struct {
	// Code is the exit status of the task.
	Code   uint32 `json:"code"`
	Reason string `json:"reason"`
	// Duration is the time from the CMD's first start; 0 if it never started.
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

// The two options whose hooks run in a container.
const (
	Prestart = "prestart"
	Poststop = "poststop"
)

// Environment is what a hook's environment holds beside that of the CMD. ending
// is nil before the CMD has ended.
func Environment(option, container string, ending *Ending) []string {
	env := []string{"RICH_HOOK=" + option, "RICH_CONTAINER=" + container}
	if ending == nil {
		return env
	}
	return append(env,
		"RICH_EXIT_CODE="+strconv.FormatUint(uint64(ending.Code), 10),
		"RICH_EXIT_SIGNAL="+ending.Signal(),
		"RICH_EXIT_REASON="+ending.Reason,
		"RICH_DURATION="+ending.Seconds(),
	)
}

// annotationPrefix begins the annotations that the state of a stopped
// container has for the host's hooks.
const annotationPrefix = "containerd-shim-rich."

// AnnotationReason holds the reason.
const AnnotationReason = annotationPrefix + "exit-reason"

// Annotations tell the host's hooks how the CMD ended.
func (e Ending) Annotations() map[string]string {
	return map[string]string{
		annotationPrefix + "exit-code":   strconv.FormatUint(uint64(e.Code), 10),
		annotationPrefix + "exit-signal": e.Signal(),
		AnnotationReason:                 e.Reason,
		annotationPrefix + "duration":    e.Seconds(),
	}
}

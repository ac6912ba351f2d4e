package shim

import (
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/log"

	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

// serviceEvent precedes the name of a service in the ID of an event about its
// process. With the colon it is the id of no exec.
const serviceEvent = "service:"

// crashed tells by an event, at once, that a service of the container has
// crashed. It is the event of any process of a container that is not pid 1.
func (c *container) crashed(service string, status uint32) {
	c.events.AddMinor(c.id, &eventstypes.TaskExit{
		ContainerID: c.id,
		ID:          serviceEvent + service,
		ExitStatus:  status,
		ExitedAt:    protobuf.ToTimestamp(time.Now()),
	})
}

// reportEnding reports a crash of the CMD that ends the container, once, as
// soon as it is known. The last words of the CMD are not there: they go
// straight to containerd's reader, and never through the shim.
func (c *container) reportEnding(e hooks.Ending) {
	c.lastCrash.Do(func() {
		switch e.Reason {
		case hooks.ReasonSignal, hooks.ReasonOOM, hooks.ReasonPrestart, hooks.ReasonComponent, hooks.ReasonStart:
		case hooks.ReasonExit:
			if e.Code == 0 {
				return
			}
		default:
			return
		}
		c.reportCrash(e)
	})
}

// commandCrashed reports a crash of the CMD after which the container goes
// on. Whoever has the launcher's socket can have as many as it likes, and only
// some are told.
func (c *container) commandCrashed(exited launch.Exited, ran time.Duration) {
	if !c.crashes.Allow() {
		return
	}
	e := hooks.Ending{Code: exited.Status, Reason: hooks.ReasonExit, Duration: ran}
	switch {
	case exited.Status == statusKilled && c.oomKilled():
		e.Reason = hooks.ReasonOOM
	case e.Signal() != "":
		e.Reason = hooks.ReasonSignal
	}
	c.reportCrash(e)
}

func (c *container) reportCrash(e hooks.Ending) {
	fields := log.Fields{"init": c.plan.Init, "code": e.Code, "signal": e.Signal(), "reason": e.Reason, "duration": e.Seconds()}
	if c.plan.Service != nil { // else the end of the task is the event
		fields["service"] = initmode.CommandService
		c.crashed(initmode.CommandService, e.Code)
	}
	c.log.WithFields(fields).Warn("the command crashed")
}

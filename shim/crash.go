package shim

import (
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/log"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
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

// commandCrashed reports a crash of the command after which the container goes
// on. Whoever has the launcher's socket can have as many as it likes, and only
// some are told.
func (c *container) commandCrashed(e life.Ending) {
	if !c.crashes.Allow() {
		return
	}
	if e.Code == life.StatusKilled && c.oomKilled() {
		e.Reason = life.ReasonOOM
	}
	c.reportCrash(e)
}

// reportCrash tells a crash of the command as soon as it is known. Its last words are
// not there: they go straight to containerd's reader, and never through the shim.
func (c *container) reportCrash(e life.Ending) {
	fields := log.Fields{"init": c.mode, "code": e.Code, "signal": e.Signal(), "reason": e.Reason, "duration": e.Seconds()}
	if c.shape == initmode.ServiceOfInit { // else the end of the task is the event
		fields["service"] = initmode.CommandService
		c.crashed(initmode.CommandService, e.Code)
	}
	c.log.WithFields(fields).Warn("the command crashed")
}

// oomKilled reports whether the kernel has killed processes of the container
// for want of memory.
func (c *container) oomKilled() bool {
	cfg := c.lc.Config()
	state, err := c.lc.State()
	return err == nil && cgroup.OOMKilled(cfg.Cgroups, state.CgroupPaths)
}

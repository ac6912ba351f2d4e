package shim

import (
	"time"

	"containerd-shim-rich/hooks"

	"containerd-shim-rich/cgroup"
)

// ending is what hooks and the log are told about the end of the CMD.
func (c *container) ending(end ending, status uint32, at time.Time) hooks.Ending {
	h := c.hooks
	h.mu.Lock()
	failed, asked, unstart, started := h.failed, h.asked, h.unstart, h.record.Started
	h.mu.Unlock()
	e := hooks.Ending{Code: status}
	if !started.IsZero() {
		e.Duration = at.Sub(started)
	}
	switch {
	case failed:
		e.Reason = hooks.ReasonPrestart
	case unstart || end.unfit:
		e.Reason = hooks.ReasonStart
	case end.killed:
		e.Reason = hooks.ReasonKill
	case c.components.failed() != "":
		e.Reason = hooks.ReasonComponent
	case status == statusKilled && c.oomKilled():
		e.Reason = hooks.ReasonOOM
	case asked:
		e.Reason = hooks.ReasonStop
	case status == statusReboot && (end.app == nil || end.app.Status != statusReboot):
		e.Reason = hooks.ReasonReboot
	case end.app != nil && end.app.Requested:
		e.Reason = hooks.ReasonHalt
	case e.Signal() != "":
		e.Reason = hooks.ReasonSignal
	default:
		e.Reason = hooks.ReasonExit
	}
	return e
}

// oomKilled reports whether the kernel has killed processes of the container
// for want of memory.
func (c *container) oomKilled() bool {
	cfg := c.lc.Config()
	state, err := c.lc.State()
	return err == nil && cgroup.OOMKilled(cfg.Cgroups, state.CgroupPaths)
}

package shim

import (
	eventstypes "github.com/containerd/containerd/api/events"
)

// watchOOM reports each time the kernel kills a process of the container for
// lack of memory, until the cgroup is gone.
func (c *container) watchOOM() {
	ooms, err := c.lc.NotifyOOM()
	if err != nil {
		c.log.WithError(err).Warn("watch for OOM")
		return
	}
	for range ooms {
		c.events.add(&eventstypes.TaskOOM{ContainerID: c.id})
	}
}

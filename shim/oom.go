package shim

import (
	"sync"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
)

// ooms counts the processes that the kernel killed for lack of memory.
type ooms struct {
	mu sync.Mutex
	// count reads how many these are so far; nil without a memory cgroup.
	count func() (uint64, error)
	seen  uint64
	ended bool // no more may be reported
}

// memoryCgroup finds out where the kernel counts.
func (c *container) memoryCgroup() error {
	state, err := c.lc.State()
	if err != nil {
		return err
	}
	c.ooms.mu.Lock()
	defer c.ooms.mu.Unlock()
	if at := state.CgroupPaths[""]; cgroups.IsCgroup2UnifiedMode() && at != "" {
		c.ooms.count = func() (uint64, error) { return fs2.OOMKillCount(at) }
	} else if at := state.CgroupPaths["memory"]; at != "" {
		c.ooms.count = func() (uint64, error) { return fs.OOMKillCount(at) }
	}
	return nil
}

// watchOOM reports each time the kernel kills a process of the container for
// lack of memory, until pid 1 has ended.
func (c *container) watchOOM() {
	notices, err := c.lc.NotifyOOM()
	if err != nil {
		c.log.WithError(err).Warn("watch for OOM")
		return
	}
	for range notices {
		c.noticeOOM()
	}
}

func (c *container) noticeOOM() {
	o := &c.ooms
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.count == nil {
		return
	}
	killed, err := o.count()
	if err != nil {
		return // the cgroup is gone
	}
	if cgroups.IsCgroup2UnifiedMode() {
		// Each time a limit is reached the file changes, also if nothing
		// was killed since.
		if killed <= o.seen {
			return
		}
	} else {
		// Notified before the kernel kills and counts.
		killed = max(killed, o.seen+1)
	}
	o.seen = killed
	c.events.add(&eventstypes.TaskOOM{ContainerID: c.id})
}

// lastOOM reports what was not noticed yet when pid 1 has ended: its end must
// not be announced before what it died of.
func (c *container) lastOOM() {
	o := &c.ooms
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	if o.count == nil {
		return
	}
	if killed, err := o.count(); err == nil && killed > o.seen {
		c.events.add(&eventstypes.TaskOOM{ContainerID: c.id})
	}
}

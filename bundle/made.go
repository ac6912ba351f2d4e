package bundle

import (
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Made are the traces of a container outside of its bundle.
type Made struct {
	Version Format `json:"version"`
	// Rootfs is the root file system, and Mounted whether the shim mounted it.
	Rootfs  string `json:"rootfs"`
	Mounted bool   `json:"mounted"`
	// MountPoints are files and directories of the root file system that
	// were not there before, outermost first.
	MountPoints []string `json:"mountPoints,omitempty"`
	// Volumes are the same in volumes of the user's.
	Volumes []VolumePoints `json:"volumes,omitempty"`
	// Logs is the directory of the components' logs, below logRoot.
	Logs string `json:"logs,omitempty"`
	// Cgroups are the container's cgroups by controller. libcontainer stores
	// them only after its first hooks.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	// Fence is the cgroup around them, nil if there is none.
	Fence *cgroups.Cgroup `json:"fence,omitempty"`
	// Poststop are the hooks that are still to be run, with State for input.
	Poststop []specs.Hook `json:"poststop,omitempty"`
	State    specs.State  `json:"state"`
}

// Exit is how a container ended. It is stored before the event is
// sent, so that it survives the shim.
type Exit struct {
	Version Format    `json:"version"`
	PID     int       `json:"pid"`
	Status  uint32    `json:"status"`
	At      time.Time `json:"at"`
}

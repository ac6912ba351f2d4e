package initmode

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// What is mounted in a volume of the user's: the mount point is made in it,
// and if the volume's mounts propagate, the mount appears on the host as well.

// ownFileSystems are those that a container has for itself: nothing of them is
// left when it is gone.
var ownFileSystems = []string{"tmpfs", "ramfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}

func isVolume(m *specs.Mount) bool { return isBind(*m) || !slices.Contains(ownFileSystems, m.Type) }

// propagates reports whether what is mounted in a mount of the spec appears
// where that comes from (mount_namespaces(7)).
func propagates(spec *specs.Spec, m *specs.Mount) bool {
	how := spec.Linux.RootfsPropagation
	for _, o := range m.Options {
		switch o {
		case "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable":
			how = o
		}
	}
	return how == "shared" || how == "rshared"
}

// MountPoint is where a mount of a plan lies in a volume of the user's.
type MountPoint struct {
	// Volume is the volume's directory on the host.
	Volume string
	// Path is relative to it.
	Path string
}

// volumeOf returns the index of the user's volume that a mount of the plan
// lies in, -1 if it lies in none, or is the user's own.
func (p *Plan) volumeOf(req *Request, m Mount) int {
	if m.Keep && p.mounted(req, m.Resolved) != nil {
		return -1
	}
	nearest, volume := "", -1
	for i, dir := range p.Destinations {
		if Below(m.Resolved, dir) && len(dir) >= len(nearest) {
			nearest, volume = dir, i
		}
	}
	for _, other := range p.Mounts {
		if other.Keep && p.mounted(req, other.Resolved) != nil {
			continue
		}
		if Below(m.Resolved, other.Resolved) && len(other.Resolved) >= len(nearest) {
			nearest, volume = other.Resolved, -1
		}
	}
	if volume >= 0 && !isVolume(&req.Spec.Mounts[volume]) {
		return -1
	}
	return volume
}

// checkVolumes notes which mounts of the plan lie in volumes. It fails if one
// would appear on the host.
func (p *Plan) checkVolumes(req *Request) error {
	p.MountPoints = nil
	for _, m := range p.Mounts {
		i := p.volumeOf(req, m)
		if i < 0 {
			continue
		}
		volume := &req.Spec.Mounts[i]
		if propagates(req.Spec, volume) {
			return fmt.Errorf("mounts[%d]: value %q: init %q needs a mount of its own at %s in it, which would appear on the host, "+
				"as the propagation of this mount is shared; mount it with \"rslave\" or \"rprivate\", or set init to %q",
				i, volume.Destination, p.Init, m.Resolved, config.InitDumbInit)
		}
		if isBind(*volume) && path.IsAbs(volume.Source) {
			p.MountPoints = append(p.MountPoints, MountPoint{volume.Source, strings.TrimPrefix(strings.TrimPrefix(m.Resolved, p.Destinations[i]), "/")})
		}
	}
	return nil
}

package initmode

import (
	"fmt"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// What the spec mounts itself, and what ours must not take from it.

// resolveMounts follows the links of the root file system to where the spec's
// mounts are made.
func resolveMounts(req *Request) ([]string, error) {
	var destinations []string
	for i, m := range req.Spec.Mounts {
		resolved, err := req.Rootfs.Resolve(m.Destination)
		if err != nil {
			return nil, fmt.Errorf("mounts[%d].destination: value %q: %w; mount it at a path inside the container", i, m.Destination, err)
		}
		destinations = append(destinations, resolved)
	}
	return destinations, nil
}

// isBind reports whether a mount shows a file or directory that is there. Its
// type says so, or its options (config.md of the runtime-spec, Mounts).
func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// bound returns the index of the bind mount of the container's own that a
// resolved path is or lies in, -1 if there is none. What is there is known
// only when the container runs. One at / is not meant: it takes the place of the
// whole image.
func (p *Plan) bound(req *Request, resolved string) int {
	for i, d := range p.Destinations {
		if d != "/" && isBind(req.Spec.Mounts[i]) && Within(resolved, d) {
			return i
		}
	}
	return -1
}

// dir is where the container sees RunDir: below /run, unless that is a volume of
// the user's, in which nothing may be made, or a mount of theirs is there.
func (p *Plan) dir(req *Request) (string, error) {
	const inRun, inDev = "/run/rich", "/dev/rich"
	run, dev := p.mounted(req, "/run"), p.mounted(req, "/dev")
	taken := -1
	if run == nil || run.Type == "tmpfs" {
		i, err := p.at(req, inRun)
		if err != nil || i < 0 {
			return inRun, err
		}
		taken = i
	}
	if dev != nil && dev.Type == "tmpfs" {
		i, err := p.at(req, inDev)
		if err != nil || i < 0 {
			return inDev, err
		}
		taken = i
	}
	if taken >= 0 {
		return "", fmt.Errorf("mounts[%d].destination: value %q: the launcher has to be there, and has no other place; "+
			"mount it elsewhere, or set init to %q", taken, req.Spec.Mounts[taken].Destination, config.InitNone)
	}
	return "", fmt.Errorf("mounts: both /run (type %q, source %q) and /dev are mounts of the container's own, which leaves no place for the launcher; "+
		"mount a tmpfs at one of them, or set init to %q", run.Type, run.Source, config.InitNone)
}

// at returns the index of a mount of the spec's that is at dir or below it, -1
// if there is none.
func (p *Plan) at(req *Request, dir string) (int, error) {
	resolved, err := req.Rootfs.Resolve(dir)
	if err != nil {
		return -1, fmt.Errorf("%s of the root file system: %w; make it a directory", dir, err)
	}
	return slices.IndexFunc(p.Destinations, func(d string) bool {
		// A link to / is not followed: all mounts would be there.
		return Within(d, dir) || resolved != "/" && Within(d, resolved)
	}), nil
}

// replaceMounts notes which of the spec's mounts go because ours are in their
// place, and fails for one that nothing makes up for.
func (p *Plan) replaceMounts(req *Request) error {
	for i, m := range req.Spec.Mounts {
		for _, ours := range p.Mounts {
			if ours.Keep || !Within(p.Destinations[i], ours.Resolved) {
				continue
			}
			if ours.Resolved != cgroupDir || !isCgroup(m, p.Destinations[i]) {
				return fmt.Errorf("mounts[%d].destination: value %q: init %q needs a mount of its own at %s; mount it elsewhere, or set init to %q",
					i, m.Destination, p.Init, ours.Destination, p.lesser())
			}
			if isBind(m) {
				p.Notes = append(p.Notes, fmt.Sprintf("mounts[%d].destination: value %q: the host's cgroups are replaced by the container's own, which init %q needs",
					i, m.Destination, p.Init))
			}
			break
		}
	}
	return nil
}

// lesser is the init that needs less.
func (p *Plan) lesser() string {
	if p.Init == config.InitDumbInit {
		return config.InitNone
	}
	return config.InitDumbInit
}

// cgroupDir is where a container has its cgroups.
const cgroupDir = "/sys/fs/cgroup"

// isCgroup reports whether a mount shows cgroups where they belong: what engines
// give each container, or the host's own, as systemd in a container used to need
// them (docker run --volume /sys/fs/cgroup:/sys/fs/cgroup:ro).
func isCgroup(m specs.Mount, resolved string) bool {
	if isBind(m) {
		return path.Clean(m.Source) == resolved && Within(resolved, cgroupDir)
	}
	return resolved == cgroupDir && (m.Type == "cgroup" || m.Type == "cgroup2")
}

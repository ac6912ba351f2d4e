package cgroup

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups/systemd"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ThroughSystemd tells whether the cgroups are made by the host's systemd:
// because an option of the handler says so, or because the bundle asks for it by a path of
// the form SLICE:PREFIX:NAME (runc, docs/systemd.md). containerd writes that
// form when the kubelet's parent cgroup is a slice. So one handler without
// options suits both drivers of the kubelet.
func ThroughSystemd(option bool, spec *specs.Spec) bool {
	if option {
		return true
	}
	if spec.Linux == nil {
		return false
	}
	parts := strings.Split(spec.Linux.CgroupsPath, ":")
	return len(parts) == 3 && strings.HasSuffix(parts[0], ".slice") && parts[2] != ""
}

// CheckSystemd says what libcontainer's own errors leave out: that it
// is an option of the handler which asks for systemd.
func CheckSystemd(spec *specs.Spec) error {
	if !systemd.IsRunningSystemd() {
		return fmt.Errorf("runtime option SystemdCgroup: value true: systemd does not run on this host; remove the option: %w", errdefs.ErrInvalidArgument)
	}
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" && strings.Count(spec.Linux.CgroupsPath, ":") != 2 {
		return fmt.Errorf("linux.cgroupsPath: value %q: with the runtime option SystemdCgroup want slice:prefix:name: %w",
			spec.Linux.CgroupsPath, errdefs.ErrInvalidArgument)
	}
	return nil
}

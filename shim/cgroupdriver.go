package shim

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// throughSystemd tells whether the cgroups are made by the host's systemd:
// because the handler says so, or because the bundle asks for it by a path of
// the form SLICE:PREFIX:NAME (runc, docs/systemd.md). containerd writes that
// form when the kubelet's parent cgroup is a slice. So one handler without
// options suits both drivers of the kubelet.
func throughSystemd(handler handlerOptions, spec *specs.Spec) bool {
	if handler.systemdCgroup {
		return true
	}
	if spec.Linux == nil {
		return false
	}
	parts := strings.Split(spec.Linux.CgroupsPath, ":")
	return len(parts) == 3 && strings.HasSuffix(parts[0], ".slice") && parts[2] != ""
}

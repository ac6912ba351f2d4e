package oci

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/initmode"
)

// Rewrite returns the spec that carries out a plan. It is pure: neither
// argument is changed, and nothing is read or written.
func Rewrite(spec *specs.Spec, plan *initmode.Plan) *specs.Spec {
	out := *spec
	if plan.Shape == initmode.Untouched {
		return &out
	}
	out.Annotations = maps.Clone(spec.Annotations)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[rewritten] = plan.Init
	if plan.Process != nil {
		process := *plan.Process
		out.Process = &process
	}
	out.Mounts = placeAll(spec.Mounts, plan)
	if len(plan.ReadonlyPaths) > 0 {
		linux := *out.Linux
		linux.ReadonlyPaths = append(slices.Clone(linux.ReadonlyPaths), plan.ReadonlyPaths...)
		out.Linux = &linux
	}
	if len(plan.Sysctl) > 0 {
		linux := *out.Linux
		linux.Sysctl = maps.Clone(linux.Sysctl)
		if linux.Sysctl == nil {
			linux.Sysctl = map[string]string{}
		}
		maps.Copy(linux.Sysctl, plan.Sysctl)
		out.Linux = &linux
	}
	if plan.PrivateCgroup {
		linux := *out.Linux
		linux.Namespaces = append(
			slices.DeleteFunc(slices.Clone(spec.Linux.Namespaces), func(ns specs.LinuxNamespace) bool {
				return ns.Type == specs.CgroupNamespace
			}),
			specs.LinuxNamespace{Type: specs.CgroupNamespace})
		out.Linux = &linux
	}
	return &out
}

func placeAll(mounts []specs.Mount, plan *initmode.Plan) []specs.Mount {
	placed := make([]initmode.Mount, len(mounts))
	for i, m := range mounts {
		placed[i] = initmode.Mount{Mount: m, Resolved: m.Destination}
		if i < len(plan.Destinations) {
			placed[i].Resolved = plan.Destinations[i]
		}
	}
	for _, m := range plan.Mounts {
		placed = place(placed, m)
	}
	out := make([]specs.Mount, len(placed))
	for i, m := range placed {
		out[i] = m.Mount
	}
	return out
}

// place puts m among the mounts, which are made in their order: after what
// it lies below, before what lies below it. (`/var/run/secrets` lies below
// `/run` in most images.)
func place(mounts []initmode.Mount, m initmode.Mount) []initmode.Mount {
	at := slices.IndexFunc(mounts, func(o initmode.Mount) bool { return o.Resolved == m.Resolved })
	if m.Keep && at >= 0 {
		m = mounts[at]
		mounts = slices.Delete(mounts, at, at+1)
		if child := firstBelow(mounts, m.Resolved); child >= 0 && child < at {
			at = child
		}
		return slices.Insert(mounts, at, m)
	}
	if !m.Keep {
		mounts = slices.DeleteFunc(mounts, func(o initmode.Mount) bool {
			return o.Resolved == m.Resolved || initmode.Below(o.Resolved, m.Resolved)
		})
	}
	if at = firstBelow(mounts, m.Resolved); at < 0 {
		at = len(mounts)
	}
	return slices.Insert(mounts, at, m)
}

func firstBelow(mounts []initmode.Mount, dir string) int {
	return slices.IndexFunc(mounts, func(o initmode.Mount) bool { return initmode.Below(o.Resolved, dir) })
}

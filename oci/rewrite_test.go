package oci

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
)

// baseSpec is a container whose engine sets something of all that a plan does.
func baseSpec() *specs.Spec {
	return &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: "rootfs"},
		Annotations: map[string]string{"a": "b"},
		Process:     &specs.Process{Args: []string{"/bin/sh"}, Cwd: "/srv"},
		Mounts:      mounts("/proc", "/dev", "/run", "/run/secrets", "/data"),
		Linux: &specs.Linux{
			Sysctl:        map[string]string{"net.a": "1"},
			ReadonlyPaths: []string{"/proc/sys"},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.CgroupNamespace, Path: "/proc/1/ns/cgroup"}, {Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
			},
		},
	}
}

// mounts are the engine's, mount is one of a plan.
func mounts(destinations ...string) []specs.Mount {
	all := make([]specs.Mount, len(destinations))
	for i, d := range destinations {
		all[i] = specs.Mount{Destination: d, Type: "bind", Source: "/engine"}
	}
	return all
}

func mount(destination string) initmode.Mount {
	return initmode.Mount{Mount: specs.Mount{Destination: destination, Type: "tmpfs", Source: "plan"}, Resolved: destination}
}

// Rewrite carries out each part of a plan, and nothing else. It changes neither
// of what it gets.
func TestRewrite(t *testing.T) {
	mark := func(s *specs.Spec) { s.Annotations[rewritten] = config.InitSystemd }
	for name, tc := range map[string]struct {
		plan   initmode.Plan
		change func(*specs.Spec) // of the input
		want   func(*specs.Spec) // from the input
	}{
		"passive": {
			plan: initmode.Plan{Init: config.InitNone, PrivateCgroup: true, Sysctl: map[string]string{"net.b": "2"}},
			want: func(*specs.Spec) {},
		},
		"mark": {plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit}, want: mark},
		"mark without annotations": {
			plan:   initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit},
			change: func(s *specs.Spec) { s.Annotations = nil },
			want:   func(s *specs.Spec) { s.Annotations = map[string]string{rewritten: config.InitSystemd} },
		},
		"process": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, Process: &specs.Process{Args: []string{"/sbin/init"}, Cwd: "/"}},
			want: func(s *specs.Spec) {
				mark(s)
				s.Process = &specs.Process{Args: []string{"/sbin/init"}, Cwd: "/"}
			},
		},
		"sysctl": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, Sysctl: map[string]string{"net.b": "2"}},
			want: func(s *specs.Spec) {
				mark(s)
				s.Linux.Sysctl["net.b"] = "2"
			},
		},
		"first sysctl": {
			plan:   initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, Sysctl: map[string]string{"net.b": "2"}},
			change: func(s *specs.Spec) { s.Linux.Sysctl = nil },
			want: func(s *specs.Spec) {
				mark(s)
				s.Linux.Sysctl = map[string]string{"net.b": "2"}
			},
		},
		"read-only paths": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, ReadonlyPaths: []string{"/proc/x", "/proc/y"}},
			want: func(s *specs.Spec) {
				mark(s)
				s.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/x", "/proc/y"}
			},
		},
		"cgroup namespace": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, PrivateCgroup: true},
			want: func(s *specs.Spec) {
				mark(s)
				s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace}}
			},
		},
		"all of linux": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, PrivateCgroup: true, Sysctl: map[string]string{"net.a": "2"}, ReadonlyPaths: []string{"/proc/x"}},
			want: func(s *specs.Spec) {
				mark(s)
				s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace}}
				s.Linux.Sysctl["net.a"] = "2"
				s.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/x"}
			},
		},
		"mounts": {
			plan: initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, Mounts: []initmode.Mount{mount("/dev/rich"), mount("/etc/machine-id")}},
			want: func(s *specs.Spec) {
				mark(s)
				s.Mounts = append(s.Mounts, mount("/dev/rich").Mount, mount("/etc/machine-id").Mount)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			input, want := baseSpec(), baseSpec()
			if tc.change != nil {
				tc.change(input)
				tc.change(want)
			}
			before, planned := encode(t, input), encode(t, tc.plan)
			got := encode(t, Rewrite(input, &tc.plan))
			if tc.want(want); got != encode(t, want) {
				t.Errorf("got %s\nwant %s", got, encode(t, want))
			}
			if after := encode(t, input); after != before {
				t.Errorf("the spec was changed to %s", after)
			}
			if after := encode(t, tc.plan); after != planned {
				t.Errorf("the plan was changed to %s", after)
			}
		})
	}
}

// A mount of a plan takes its place after what it lies below and before what
// lies below it, and that of what the engine mounts there.
func TestRewriteMounts(t *testing.T) {
	keep := func(m initmode.Mount) initmode.Mount {
		m.Keep = true
		return m
	}
	for name, tc := range map[string]struct {
		engine   []string
		resolved []string // by the links of the root file system, if there are any
		plan     []initmode.Mount
		want     []string // in parentheses: the plan's
	}{
		"last":                     {engine: []string{"/proc", "/dev"}, plan: []initmode.Mount{mount("/run")}, want: []string{"/proc", "/dev", "(/run)"}},
		"in their order":           {engine: []string{"/proc"}, plan: []initmode.Mount{mount("/run"), mount("/run/lock")}, want: []string{"/proc", "(/run)", "(/run/lock)"}},
		"instead":                  {engine: []string{"/run", "/proc"}, plan: []initmode.Mount{mount("/run")}, want: []string{"/proc", "(/run)"}},
		"instead of what is below": {engine: []string{"/run/a", "/runner", "/run/b"}, plan: []initmode.Mount{mount("/run")}, want: []string{"/runner", "(/run)"}},
		"kept":                     {engine: []string{"/run", "/proc"}, plan: []initmode.Mount{keep(mount("/run"))}, want: []string{"/run", "/proc"}},
		"kept, before those below": {engine: []string{"/run/a", "/proc", "/run", "/run/b"}, plan: []initmode.Mount{keep(mount("/run"))}, want: []string{"/run", "/run/a", "/proc", "/run/b"}},
		"none to keep":             {engine: []string{"/proc", "/run/a", "/tmp"}, plan: []initmode.Mount{keep(mount("/run"))}, want: []string{"/proc", "(/run)", "/run/a", "/tmp"}},
		"below through a link": {
			engine: []string{"/proc", "/var/run/secrets"}, resolved: []string{"/proc", "/run/secrets"},
			plan: []initmode.Mount{keep(mount("/run"))}, want: []string{"/proc", "(/run)", "/var/run/secrets"},
		},
		"kept through a link": {
			engine: []string{"/var/run", "/proc"}, resolved: []string{"/run", "/proc"},
			plan: []initmode.Mount{keep(mount("/run"))}, want: []string{"/var/run", "/proc"},
		},
		"below the root": {engine: []string{"/a", "/b"}, plan: []initmode.Mount{keep(mount("/"))}, want: []string{"(/)", "/a", "/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &specs.Spec{Mounts: mounts(tc.engine...)}
			out := Rewrite(spec, &initmode.Plan{Init: config.InitSystemd, Shape: initmode.ServiceOfInit, Mounts: tc.plan, Destinations: tc.resolved})
			var got []string
			for _, m := range out.Mounts {
				if m.Source == "plan" {
					m.Destination = "(" + m.Destination + ")"
				}
				got = append(got, m.Destination)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func encode(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

package shim

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/components"
	"containerd-shim-rich/initmode"
)

// Files that put processes under limits are for a pid namespace in which no
// process but the container's has a number.
func TestT4Plan(t *testing.T) {
	namespace := func(ns ...specs.LinuxNamespace) *specs.Spec { return &specs.Spec{Linux: &specs.Linux{Namespaces: ns}} }
	with := func(name string, memory, cpu int64) initmode.Component {
		return initmode.Component{Definition: &components.Definition{Name: name, Memory: memory, CPU: cpu}}
	}
	own := namespace(specs.LinuxNamespace{Type: specs.PIDNamespace})
	host := namespace(specs.LinuxNamespace{Type: specs.MountNamespace})
	shared := namespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"})
	for name, c := range map[string]struct {
		spec *specs.Spec
		list []initmode.Component
		want []string // in the error
	}{
		"own":              {own, []initmode.Component{with("a", 1, 1)}, nil},
		"host, no limit":   {host, []initmode.Component{with("a", 0, 0)}, nil},
		"shared, none":     {shared, nil, nil},
		"host, memory":     {host, []initmode.Component{with("a", 0, 0), with("agent", 1, 0)}, []string{"/components.d/agent.toml", "memory", "host's pid namespace", "its own pid namespace"}},
		"shared, cpus":     {shared, []initmode.Component{with("agent", 0, 1)}, []string{"/components.d/agent.toml", "cpus", "/proc/7/ns/pid"}},
		"host, both":       {host, []initmode.Component{with("agent", 1, 1)}, []string{"agent.toml: memory"}},
		"nothing is known": {&specs.Spec{Linux: &specs.Linux{}}, []initmode.Component{with("agent", 1, 1)}, []string{"linux.namespaces"}},
	} {
		err := checkLimits(c.list, c.spec)
		if (err == nil) != (c.want == nil) || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		for _, words := range c.want {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: the error does not say %q: %v", name, words, err)
			}
		}
	}
}

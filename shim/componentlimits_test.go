package shim

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/components"
	"containerd-shim-rich/initmode"
)

func TestQuota(t *testing.T) {
	have := func(quota int64, period uint64) *specs.LinuxResources {
		return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
	}
	for name, c := range map[string]struct {
		hundredths int64
		have       *specs.LinuxResources
		want       int64
	}{
		"alone":                        {25, nil, 25000},
		"two processors":               {200, &specs.LinuxResources{CPU: &specs.LinuxCPU{}}, 200000},
		"the least":                    {1, nil, 1000},
		"below the container's":        {25, have(50000, 100000), 25000},
		"above the container's":        {200, have(50000, 100000), 50000},
		"another period":               {200, have(5000, 50000), 10000},
		"the container has no limit":   {25, have(-1, 100000), 25000},
		"the container's is the least": {25, have(1000, 1000000), 1000},
	} {
		if got := quota(c.hundredths, c.have); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

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

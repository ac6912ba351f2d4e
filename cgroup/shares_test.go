package cgroup

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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

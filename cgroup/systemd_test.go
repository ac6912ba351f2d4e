package cgroup

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestThroughSystemd(t *testing.T) {
	for _, tc := range []struct {
		option bool
		path   string
		want   bool
	}{
		{false, "/kubepods/besteffort/pod1/abc", false},
		{false, "", false},
		{false, "kubepods-besteffort-pod1.slice:cri-containerd:abc", true},
		{false, "kubepods-besteffort-pod1.slice::abc", true},
		{false, "kubepods-besteffort-pod1.slice:cri-containerd:", false},
		{false, "/a.slice/b", false},
		{false, "a:b:c", false},
		{true, "a:b:c", true},
		{true, "", true},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: tc.path}}
		if got := ThroughSystemd(tc.option, spec); got != tc.want {
			t.Errorf("option %v, path %q: %v, want %v", tc.option, tc.path, got, tc.want)
		}
	}
	if ThroughSystemd(false, &specs.Spec{}) {
		t.Error("a spec without a Linux part asks for systemd")
	}
}

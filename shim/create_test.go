package shim

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/cgroup"

	"containerd-shim-rich/bundle"
)

// What a Create holds open for the time after it goes with it when it fails.
func TestRevertContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("libcontainer makes containers without a user namespace for root only")
	}
	dir := t.TempDir()
	lc, err := libcontainer.Create(dir, "c1", &configs.Config{
		Rootfs:     "/",
		Namespaces: configs.Namespaces{{Type: configs.NEWNS}, {Type: configs.NEWPID}},
		Cgroups:    &cgroups.Cgroup{Path: "/rich-test-never-made", Resources: &cgroups.Resources{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	watching := true
	c := &container{
		lc:     lc,
		bundle: bundle.Bundle(dir),
		hooks:  &hookSet{namespaces: map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: namespace}},
		ooms: &cgroup.OOMWatch{Stop: func() {
			watching = false
			if _, err := os.Stat(filepath.Join(dir, "c1")); err != nil {
				t.Errorf("the container is gone before the watch of its cgroup: %v", err)
			}
		}},
	}
	if err := c.revertContainer(); err != nil {
		t.Error(err)
	}
	if watching {
		t.Error("the cgroup is still watched")
	}
	if err := namespace.Close(); err == nil {
		t.Error("the namespaces are still held")
	}
}

package integration

import (
	"os"
	"strings"
	"testing"
)

// A host without cgroup2: systemd cannot run there, which Create says; auto and the other inits do without it.
func TestCgroupLegacy(t *testing.T) {
	t.Parallel()
	if unified() {
		t.Skip("this host has no cgroup v1 hierarchies, so it cannot show what a host with nothing else does")
	}
	dir, err := os.MkdirTemp(private.Dir, "host-")
	if err != nil {
		t.Fatal(err)
	}
	// The shims have ended, with their mounts, when the cleanup of the tasks is done.
	t.Cleanup(func() { os.RemoveAll(dir) })
	shim := shimAfter(t, dir, "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi\n")
	legacy := func(s *taskSettings) { s.runtime = shim }
	t.Run("systemd", func(t *testing.T) {
		t.Parallel()
		_, err := tryTask(t, imageBookworm, legacy, withInit("systemd"), withArgs("true"))
		if err == nil {
			t.Fatal("create succeeded")
		}
		for _, words := range []string{"cgroup2", "/sys/fs/cgroup/unified", "dumb-init"} {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("the error does not say %q: %v", words, err)
			}
		}
	})
	for _, v := range []variant{{"auto", imageBookworm, "auto"}, {"busybox", imageInitBusybox, "sbin-init"}, {"sysvinit", imageSysvinit, "sbin-init"}} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			want := map[string]string{"auto": "dumb-init\n", "busybox": "init\n", "sysvinit": "init\n"}[v.name]
			if got := runTask(t, v.image, initLimit, v.with(legacy, withArgs("sh", "-c", "cat /proc/1/comm; exit 42"))...); got.Stdout != want || got.Code != 42 {
				t.Errorf("got %+v, want %q and 42", got, want)
			}
		})
	}
}

package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
)

// sharedVolume is a folder of the host whose mounts others can see.
func sharedVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// In a place of its own, so that nothing of the test is seen elsewhere.
	for _, m := range []struct {
		kind  string
		flags uintptr
	}{{"tmpfs", 0}, {"", unix.MS_PRIVATE}} {
		if err := unix.Mount("tmpfs", dir, m.kind, m.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	volume := filepath.Join(dir, "volume")
	t.Cleanup(func() {
		for _, point := range []string{volume, dir} {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", point, err)
			}
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(volume, 0o755), unix.Mount("tmpfs", volume, "tmpfs", 0, "mode=755"),
		unix.Mount("", volume, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err)
	}
	return volume
}

func withRootfsPropagation(how string) taskOption {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.RootfsPropagation = how
		return nil
	})
}

// Nothing of ours is mounted in a volume whose mounts appear on the host.
func TestT11SharedVolume(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, root string
		options    []string
	}{
		{"rshared mount", "rshared", []string{"rbind", "rw", "rshared"}},
		{"shared mount", "shared", []string{"bind", "rw", "shared"}},
		{"shared root", "rshared", []string{"rbind", "rw"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			volume := sharedVolume(t)
			opts := []taskOption{withoutRunMount(), withRootfsPropagation(c.root), withBind(volume, "/run", c.options...), withArgs("cat", "/proc/1/comm")}
			unharmed := func() {
				t.Helper()
				if found := mountsBelow(t, volume); len(found) != 1 {
					t.Errorf("the mounts are\n%s", strings.Join(found, "\n"))
				}
				if got := listFolder(t, volume); len(got) > 1 {
					t.Errorf("the volume holds %q", got)
				}
			}
			for image, init := range map[string]string{imageBookworm: "systemd", imageSysvinit: "sbin-init"} {
				run, err := tryTask(t, image, append(opts, withInit(init))...)
				if err == nil {
					run.Start()
					run.Wait(runLimit)
					run.Delete()
					t.Errorf("%s: no error", init)
				} else {
					expectError(t, err, []string{"mounts[", `value "/run"`, "/run/lock", `"rslave"`, `"dumb-init"`})
				}
				unharmed()
				if got := runTask(t, image, runLimit, append(opts, withInit("auto"))...); got != (result{Stdout: "dumb-init\n"}) {
					t.Errorf("auto: %+v", got)
				}
				unharmed()
			}
			// The command is the init itself: it gets what it would get from runc.
			run, log := watch(t, imageBookworm, append(opts, withInit("auto"), withArgs("/lib/systemd/systemd"))...)
			if got := run.Exec("sh", "-c", "[ -e /run/rich ] || [ -e /dev/rich ] || echo untouched"); got.Stdout != "untouched\n" {
				t.Errorf("systemd as the command: %+v", got)
			}
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
			if found := mountsBelow(t, volume); len(found) > 1 {
				t.Logf("what systemd itself has mounted:\n%s", strings.Join(found, "\n"))
			}
		})
	}
}

// A mount point that was made in a volume does not stay there.
func TestT11MountPointInVolume(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		there, crash bool
	}{{"missing", false, false}, {"there", true, false}, {"missing with a killed shim", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			volume := sharedVolume(t)
			lock := filepath.Join(volume, "lock")
			if c.there {
				if err := os.Mkdir(lock, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			run, log := watch(t, imageBookworm, withInit("systemd"), withoutRunMount(), withBind(volume, "/run", "rbind", "rw", "rprivate"),
				withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))
			run.WaitOutput("ready", runLimit)
			if found := mountsBelow(t, volume); len(found) != 1 {
				t.Errorf("the mounts are\n%s", strings.Join(found, "\n"))
			}
			if c.crash {
				run.killed(log, 137)
			} else {
				run.Kill(syscall.SIGTERM)
				run.outcome(log, 5)
			}
			eventually(t, runLimit, "the volume without our mount point", func() error {
				if _, err := os.Lstat(lock); errors.Is(err, os.ErrNotExist) == c.there {
					return errors.Join(errors.New("the folder lock"), err)
				}
				return nil
			})
			if found := mountsBelow(t, volume); len(found) != 1 {
				t.Errorf("the mounts are\n%s", strings.Join(found, "\n"))
			}
		})
	}
}

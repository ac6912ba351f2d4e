package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// The comparison of the host itself: it sees damage and what a run leaves, and nothing of what others do. Not parallel.

// differs looks at the host before and after something was done to it, and fails the test unless the difference has these words.
func differs(t *testing.T, words string, do func()) {
	t.Helper()
	before, err := private.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	do()
	after, err := private.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if diff := before.diff(after); !strings.Contains(diff, words) {
		t.Errorf("no %q in the difference: %q", words, diff)
	}
}

func TestHostDamageIsSeen(t *testing.T) {
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("sysctl", func(t *testing.T) {
		// In a UTS namespace of its own this thread has one for itself. The thread ends with the goroutine.
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
				t.Error(err)
				return
			}
			before, err := sysctlLines()
			if err == nil {
				err = os.WriteFile("/proc/thread-self/root/proc/sys/kernel/domainname", []byte("planted"), 0)
			}
			after, errAfter := sysctlLines()
			if err := errors.Join(err, errAfter); err != nil {
				t.Error(err)
				return
			}
			slices.Sort(before)
			slices.Sort(after)
			if diff := hostState(before).diff(after); !strings.Contains(diff, `+ sysctl kernel/domainname "planted\n"`) {
				t.Errorf("the difference is %q", diff)
			}
		}()
		<-done
	})
	t.Run("mount", func(t *testing.T) {
		dir := t.TempDir() // in the folder of the run
		differs(t, "+ mount "+dir, func() { must(unix.Mount("planted", dir, "tmpfs", 0, "")) })
		differs(t, "- mount "+dir, func() { must(unix.Unmount(dir, 0)) })
		elsewhere, err := os.MkdirTemp("/run", "planted-")
		must(err)
		defer os.Remove(elsewhere)
		differs(t, "+ mount "+elsewhere, func() { must(unix.Mount(dir, elsewhere, "", unix.MS_BIND, "")) })
		differs(t, "- mount "+elsewhere, func() { must(unix.Unmount(elsewhere, unix.MNT_DETACH)) })
	})
	t.Run("mount of the machine", func(t *testing.T) {
		const point = "/dev/shm"
		differs(t, "+ mount "+point, func() { must(unix.Mount("planted", point, "tmpfs", 0, "")) })
		differs(t, "- mount "+point, func() { must(unix.Unmount(point, 0)) })
	})
	t.Run("cgroup", func(t *testing.T) {
		points, err := containerdtest.CgroupMounts()
		must(err)
		for _, point := range points {
			dir := filepath.Join(point, private.Cgroup(), "planted", "deep")
			differs(t, "+ cgroup "+dir, func() { must(os.MkdirAll(dir, 0o755)) })
			differs(t, "- cgroup "+dir, func() { must(os.Remove(dir), os.Remove(filepath.Dir(dir))) })
			// What an init makes that takes the host's tree for its own.
			top := filepath.Join(point, "openrc")
			if _, err := os.Lstat(top); err == nil {
				continue // the host's own
			}
			differs(t, "+ cgroup "+top, func() { must(os.Mkdir(top, 0o755)) })
			differs(t, "- cgroup "+top, func() { must(os.Remove(top)) })
		}
	})
	t.Run("file", func(t *testing.T) {
		file := filepath.Join(private.Dir, "tmp", "planted")
		differs(t, "+ file "+file, func() { must(os.WriteFile(file, nil, 0o600)) })
		differs(t, "- file "+file, func() { must(os.Remove(file)) })
	})
}

// Device nodes are planted in a folder of their own.
func TestHostDamageToDevices(t *testing.T) {
	dev := t.TempDir()
	path := func(name string) string { return filepath.Join(dev, name) }
	node := func(name string, mode, major, minor uint32) error {
		return unix.Mknod(path(name), mode, int(unix.Mkdev(major, minor)))
	}
	if err := errors.Join(node("null", unix.S_IFCHR|0o666, 1, 3), node("tty", unix.S_IFCHR|0o666, 5, 0), node("loop7", unix.S_IFBLK|0o660, 7, 7),
		os.Symlink("/proc/self/fd", path("fd")), os.Mkdir(path("disk"), 0o755), os.Chmod(path("null"), 0o666)); err != nil {
		t.Fatal(err)
	}
	look := func() hostState {
		lines, err := deviceLines(dev)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(lines)
		return lines
	}
	for _, c := range []struct {
		name, want string // "" for no difference
		do, undo   func() error
	}{
		{"mode", "+ device " + path("null") + " Dcrw-r--r--", func() error { return os.Chmod(path("null"), 0o644) }, func() error { return os.Chmod(path("null"), 0o666) }},
		{"owner", "owner 7:0", func() error { return os.Chown(path("tty"), 7, 0) }, func() error { return os.Chown(path("tty"), 0, 0) }},
		{
			"a file in its place", "+ device " + path("null") + " ----------", func() error { return errors.Join(os.Remove(path("null")), os.WriteFile(path("null"), nil, 0o666)) },
			func() error {
				return errors.Join(os.Remove(path("null")), node("null", unix.S_IFCHR|0o666, 1, 3), os.Chmod(path("null"), 0o666))
			},
		},
		{"gone", "- device " + path("tty"), func() error { return os.Rename(path("tty"), path("disk/tty")) }, func() error { return os.Rename(path("disk/tty"), path("tty")) }},
		{"link gone", "- device " + path("fd"), func() error { return os.Remove(path("fd")) }, func() error { return os.Symlink("/proc/self/fd", path("fd")) }},
		{"new terminal", "+ device " + path("tty1"), func() error { return node("tty1", unix.S_IFCHR|0o600, 4, 1) }, func() error { return os.Remove(path("tty1")) }},
		{"new disk", "", func() error { return node("loop8", unix.S_IFBLK|0o600, 7, 8) }, func() error { return os.Remove(path("loop8")) }},
		{"plugged", "", func() error { return os.Mkdir(path("disk/by-id"), 0o755) }, func() error { return os.Remove(path("disk/by-id")) }},
		{"a program's file", "", func() error { return os.WriteFile(path("log"), nil, 0o666) }, func() error { return os.Remove(path("log")) }},
	} {
		before := look()
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if diff := before.diff(look()); !strings.Contains(diff, c.want) || c.want == "" && diff != "" {
			t.Errorf("%s: the difference is %q, want %q", c.name, diff, c.want)
		}
		if err := c.undo(); err != nil {
			t.Fatal(err)
		}
		if diff := before.diff(look()); diff != "" {
			t.Errorf("%s: afterwards %q", c.name, diff)
		}
	}
}

// What comes and goes by others is no difference.
func TestHostOthersAreLeftOut(t *testing.T) {
	before := hostState{"controller /c/memory", "module overlay", "process 7 shim", `sysctl a "1"`, `sysctl net/ipv4/conf/veth0/mtu "1"`, "terminal active tty1"}
	for _, c := range []struct {
		after hostState
		want  string
	}{
		{hostState{"controller /c/cpu", "controller /c/memory", "module dummy", "module overlay", `sysctl a "1"`, `sysctl net/ipv4/conf/veth1/mtu "1"`, "terminal active tty1"}, ""},
		{hostState{"controller /c/memory", `sysctl a "2"`, "terminal active tty2"}, "- module overlay\n- sysctl a \"1\"\n- terminal active tty1\n+ sysctl a \"2\"\n+ terminal active tty2"},
		{hostState{"module overlay", "process 8 shim", `sysctl a "1"`, "terminal active tty1"}, "- controller /c/memory\n+ process 8 shim"},
	} {
		if diff := before.diff(c.after); diff != c.want {
			t.Errorf("the difference is %q, want %q", diff, c.want)
		}
	}
	for text, want := range map[string]bool{
		"/tmp/rich-test-12": true, "a /tmp/rich-test-12/x": true, "-id /tmp/rich-test-12 b": true, "/tmp/rich-test-123": false,
		"/tmp/rich-test-123 /tmp/rich-test-12": true, "/tmp/rich-test-1": false,
	} {
		if got := containerdtest.Mentions(text, "/tmp/rich-test-12"); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Beside another containerd, whose containers start and end, and beside mounts and cgroups of others that come and go, all
// that compares the host finds it unchanged.
func TestForeignContainers(t *testing.T) {
	other, err := startRelease(newest, filepath.Dir(private.Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer other.remove()
	other.image(t, imageBookworm)
	other.image(t, imageBusybox)
	private.image(t, imageBookworm)
	private.image(t, imageBusybox)

	stop := make(chan struct{})
	var others sync.WaitGroup
	// Each does something again and again, and has undone it when it ends.
	again := func(do func(n int) error) {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	again(func(n int) error {
		name := fmt.Sprintf("foreign-%s-%d", other.RunName(), n%3)
		var errs []error
		for _, point := range points {
			errs = append(errs, os.MkdirAll(filepath.Join(point, name, "below"), 0o755))
		}
		time.Sleep(20 * time.Millisecond)
		for _, point := range points {
			errs = append(errs, os.Remove(filepath.Join(point, name, "below")), os.Remove(filepath.Join(point, name)))
		}
		return errors.Join(errs...)
	})
	for _, parent := range []string{"/run", "/mnt", "/var/tmp"} {
		again(func(int) error {
			dir, err := os.MkdirTemp(parent, "foreign-")
			if err != nil {
				return err
			}
			err = unix.Mount("foreign", dir, "tmpfs", 0, "")
			time.Sleep(10 * time.Millisecond)
			return errors.Join(err, unix.Unmount(dir, 0), os.Remove(dir))
		})
	}
	for _, v := range []struct{ image, init string }{{imageBusybox, "none"}, {imageBookworm, "systemd"}} {
		again(func(int) error { return other.runForeign(t, v.image, v.init) })
	}

	for range 3 {
		for _, v := range []variant{{"none", imageBusybox, "none"}, systemdBookworm} {
			compare := snapshotHost(t)
			if got := runTask(t, v.image, runLimit, v.with(withArgs("sh", "-c", "exit 3"))...); got.Code != 3 {
				t.Errorf("%s: %+v", v.name, got)
			}
			compare()
		}
	}
	close(stop)
	others.Wait()
}

// runForeign runs a container to its end, whose cgroup is at the top of the hierarchies.
func (d *daemon) runForeign(t testing.TB, image, init string) error {
	id := newID(t)
	run, err := tryTask(t, image, withDaemon(d), withInit(init), withArgs("true"),
		withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
			spec.Linux.CgroupsPath = "/foreign-" + id
			return nil
		}))
	if err != nil {
		return err
	}
	ctx, cancel := d.within(callLimit)
	defer cancel()
	if err := run.Task.Start(ctx); err != nil {
		return err
	}
	select {
	case <-run.exit:
	case <-ctx.Done():
		return ctx.Err()
	}
	run.Delete()
	return nil
}

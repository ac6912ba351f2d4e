package integration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What happens when the programs are replaced under running shims.

// withOwnPrograms gives a containerd copies of the programs in a folder of its own, which the test may change.
func withOwnPrograms(t *testing.T) (option func(*daemon), dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"containerd-shim-rich-v2", "rich-launch", "dumb-init"} {
		replaceProgram(t, filepath.Join(dir, name), buildPath("bin/"+name))
	}
	return func(d *daemon) { d.Path = []string{dir} }, dir
}

// replaceProgram installs a program as an upgrade does: under another name, and then renamed.
func replaceProgram(t *testing.T, name, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(name+".part", content, 0o755), os.Rename(name+".part", name)); err != nil {
		t.Fatal(err)
	}
}

// upgradeInits are those that run the command by a launcher which talks to the shim.
var upgradeInits = []struct {
	variant
	opts []taskOption
}{
	{systemdBookworm, nil},
	{variant{"sysvinit", imageSysvinit, "sbin-init"}, nil},
	{variant{"busybox", imageInitBusybox, "sbin-init"}, nil},
	{variant{"openrc", imageInitOpenRC, "sbin-init"}, nil},
	{variant{"runit", imageRunit, "sbin-init"}, nil},
	{variant{"dumb-init stays", imageBusybox, "dumb-init"}, []taskOption{withRich("on-exit", "keep")}},
}

// A container that joins a running shim after an upgrade gets the programs of that shim.
func TestT5UpgradeUnderRunningShim(t *testing.T) {
	t.Parallel()
	own, programs := withOwnPrograms(t)
	d := newest.start(t, own)
	group := withAnnotation("io.containerd.runc.v2.group", newID(t))
	first := startTask(t, imageBusybox, withDaemon(d), withInit("dumb-init"), group, answering)
	first.WaitOutput("ready", runLimit)
	replaceProgram(t, filepath.Join(programs, "rich-launch"), buildPath("bin/probe"))
	for _, v := range upgradeInits {
		t.Run(v.name, func(t *testing.T) {
			d.image(t, v.image)
			id := newID(t)
			log := d.subscribe(t, id)
			opts := append([]taskOption{withDaemon(d), withID(id), withInit(v.init), group, answering}, v.opts...)
			run := startTask(t, v.image, opts...)
			run.WaitOutput("ready", runLimit)
			if info, err := os.Stat(run.bundle("rich/bin/rich-launch")); err != nil || !info.Mode().IsRegular() {
				t.Errorf("the container's launcher: %v, %v", info, err)
			}
			run.Kill(syscall.SIGKILL)
			run.outcome(log, 137)
			if _, err := os.Stat(run.bundle("rich")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the bundle is left: %v", err)
			}
		})
	}
	first.Kill(syscall.SIGTERM)
	if code := first.Wait(runLimit); code != 5 {
		t.Errorf("the first container ended with %d", code)
	}
	first.Delete()
}

// A launcher of another version than the shim ends the container, and says why.
func TestT5OtherVersion(t *testing.T) {
	t.Parallel()
	own, programs := withOwnPrograms(t)
	d := newest.start(t, own)
	replaceProgram(t, filepath.Join(programs, "rich-launch"), buildPath("bin/probe"))
	for _, v := range upgradeInits {
		t.Run(v.name, func(t *testing.T) {
			d.image(t, v.image)
			id := newID(t)
			run := startTask(t, v.image, append([]taskOption{withDaemon(d), withID(id), withInit(v.init), withArgs("echo", "started")}, v.opts...)...)
			if code := run.Wait(runLimit); code != 125 {
				t.Errorf("exit status %d, want 125", code)
			}
			if state, err := os.ReadFile(run.bundle("rich/run/app.json")); err != nil || !strings.Contains(string(state), "version 999") {
				t.Errorf("app.json holds %q, %v", state, err)
			}
			if code := run.Delete(); code != 125 {
				t.Errorf("delete reports %d", code)
			}
			if got := run.Stdout.String(); got != "" {
				t.Errorf("stdout is %q", got)
			}
			if got := run.Stderr.String(); !strings.Contains(got, "rich: the launcher has version 999 of the launch protocol") {
				t.Errorf("stderr is %q", got)
			}
			if got := d.LogTail(id, 1000); !strings.Contains(got, "version 999") {
				t.Errorf("nothing in the log of\n%s", got)
			}
		})
	}
	// The programs are put right: a new attempt does not need a new shim.
	t.Run("repaired", func(t *testing.T) {
		group := withAnnotation("io.containerd.runc.v2.group", newID(t))
		holder := startTask(t, imageBusybox, withDaemon(d), withInit("none"), group, answering)
		holder.WaitOutput("ready", runLimit)
		try := func() result {
			return runTask(t, imageBusybox, runLimit, withDaemon(d), withInit("dumb-init"), withRich("on-exit", "restart"), group,
				withArgs("sh", "-c", "echo started; kill -TERM 1"))
		}
		if got := try(); got.Code != 125 || got.Stdout != "" {
			t.Errorf("got %+v", got)
		}
		replaceProgram(t, filepath.Join(programs, "rich-launch"), buildPath("bin/rich-launch"))
		if got := try(); got.Code == 125 || !strings.Contains(got.Stdout, "started") {
			t.Errorf("after the repair: %+v", got)
		}
		holder.Kill(syscall.SIGTERM)
		holder.Wait(runLimit)
		holder.Delete()
	})
}

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/launch"
)

// install puts programs beside this test program, whose shim would find them
// there.
func install(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".part", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".part", path); err != nil {
			t.Fatal(err)
		}
	}
}

// A container gets the programs that were installed when its shim started.
func TestT5PinnedPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(self)
	t.Cleanup(func() {
		os.Remove(filepath.Join(dir, launcherProgram))
		os.Remove(filepath.Join(dir, dumbInitProgram))
	})
	install(t, dir, map[string]string{launcherProgram: "launcher 1", dumbInitProgram: "dumb-init 1"})
	p := &programs{}
	if err := p.pin(); err != nil {
		t.Fatal(err)
	}
	ours, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	n := 0
	check := func(what, launcher, dumbInit string, ownFileSystem bool) {
		t.Helper()
		n++
		name := "bin" + string(rune('0'+n))
		if err := p.expose(ours, name); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		defer func() {
			if err := ours.Unmount(name); err != nil {
				t.Error(err)
			}
		}()
		bin, err := ours.Sub(name)
		if err != nil {
			t.Fatal(err)
		}
		defer bin.Close()
		for program, want := range map[string]string{launcherProgram: launcher, dumbInitProgram: dumbInit} {
			if got, err := bin.ReadFile(program, 100); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v, want %q", what, program, got, err, want)
			}
		}
		if err := bin.WriteFile("new", nil, 0o600); err == nil {
			t.Errorf("%s: it can be written to", what)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(bin.Path(), &fs); err != nil {
			t.Fatal(err)
		}
		if copied := fs.Type == unix.TMPFS_MAGIC; copied != ownFileSystem {
			t.Errorf("%s: copies: %v, want %v", what, copied, ownFileSystem)
		} else if copied && int64(fs.Blocks)*fs.Bsize > 64<<10 {
			t.Errorf("%s: the file system has %d blocks", what, fs.Blocks)
		}
	}
	check("nothing has changed", "launcher 1", "dumb-init 1", false)
	install(t, dir, map[string]string{launcherProgram: "launcher 2"})
	check("the launcher was replaced", "launcher 1", "dumb-init 1", true)
	install(t, dir, map[string]string{launcherProgram: "launcher 1", dumbInitProgram: "dumb-init 1"})
	check("another file with the same content", "launcher 1", "dumb-init 1", true)
	p.mismatched()
	check("the launcher did not fit", "launcher 1", "dumb-init 1", false)
	if err := os.Remove(filepath.Join(dir, launcherProgram)); err != nil {
		t.Fatal(err)
	}
	check("the launcher was removed", "launcher 1", "dumb-init 1", true)

	// A container that only pretends changes nothing for the others.
	fits := "launcher 2: " + launch.Mark
	install(t, dir, map[string]string{launcherProgram: fits})
	if err := p.pin(); err != nil {
		t.Fatal(err)
	}
	install(t, dir, map[string]string{launcherProgram: "launcher 3"})
	p.mismatched()
	check("somebody said that the launcher did not fit", fits, "dumb-init 1", true)

	// Nothing can be known of a program that was written over.
	install(t, dir, map[string]string{launcherProgram: "launcher 3"})
	if err := p.pin(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, launcherProgram), []byte("launcher 4"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, launcherProgram), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := p.expose(ours, "over"); err == nil || !strings.Contains(err.Error(), "overwritten") {
		t.Errorf("a program that was overwritten: %v", err)
	}
	if err := ours.Unmount("over"); err != nil {
		t.Error(err)
	}
}

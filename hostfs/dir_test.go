package hostfs

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// place is an open directory, and one beside it that nothing may get to.
func place(t *testing.T) (d *Dir, dir, outside string) {
	t.Helper()
	dir, outside = t.TempDir(), t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	return d, dir, outside
}

// writes are all ways to change something, by a name.
var writes = map[string]func(d *Dir, name string) error{
	"WriteFile": func(d *Dir, name string) error { return d.WriteFile(name, []byte("ours"), 0o666) },
	"Create": func(d *Dir, name string) error {
		f, err := d.Create(name, 0o666)
		if err == nil {
			f.Close()
		}
		return err
	},
	"Mkdir":       func(d *Dir, name string) error { return d.Mkdir(name, 0o777) },
	"Symlink":     func(d *Dir, name string) error { return d.Symlink("x", name) },
	"ChownSocket": func(d *Dir, name string) error { return d.ChownSocket(name, os.Getuid(), os.Getgid()) },
}

// untouched fails the test if the victim has changed.
func untouched(t *testing.T, outside string) {
	t.Helper()
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside there are %v, %v", entries, err)
	}
	name := filepath.Join(outside, "victim")
	content, err := os.ReadFile(name)
	info, statErr := os.Stat(name)
	if err := errors.Join(err, statErr); err != nil || string(content) != "host" || info.Mode() != 0o600 {
		t.Errorf("the victim is %q, %v, %v", content, info.Mode(), err)
	}
}

// A link, as the last component or before it, is never followed.
func TestT1NoLinkIsFollowed(t *testing.T) {
	d, dir, outside := place(t)
	for name, target := range map[string]string{
		"file": filepath.Join(outside, "victim"), "dir": outside, "new": filepath.Join(outside, "new"), "inside": "sub", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Mkdir("sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for what, write := range writes {
		for _, name := range []string{"file", "dir", "new", "loop", "dir/victim", "dir/new", "inside/new", "loop/new", "file/new"} {
			if err := write(d, name); err == nil {
				t.Errorf("%s %s: no error", what, name)
			}
		}
	}
	for _, name := range []string{"file", "dir/victim"} {
		if data, err := d.ReadFile(name, 100); err == nil {
			t.Errorf("read %s: %q", name, data)
		}
	}
	for _, name := range []string{"dir", "inside", "dir/x"} {
		if sub, err := d.Sub(name); err == nil {
			sub.Close()
			t.Errorf("open %s: no error", name)
		}
	}
	if err := d.MkdirAll("dir/a/b", 0o755); err == nil {
		t.Error("MkdirAll through a link: no error")
	}
	if err := d.Unmount("dir"); err != nil {
		t.Errorf("unmount at a link: %v", err)
	}
	untouched(t, outside)
	// Only the link itself changes its owner, is replaced, and is removed.
	if os.Geteuid() == 0 {
		if err := d.Chown("file", 4321, 4321); err != nil {
			t.Error(err)
		}
		if stat, err := d.Lstat("file"); err != nil || stat.Uid != 4321 {
			t.Errorf("the link is of user %d, %v", stat.Uid, err)
		}
	}
	if err := d.Replace("file", []byte("ours"), 0o644); err != nil {
		t.Error(err)
	}
	if data, err := d.ReadFile("file", 100); err != nil || string(data) != "ours" {
		t.Errorf("got %q, %v", data, err)
	}
	if err := d.Remove("dir"); err != nil {
		t.Error(err)
	}
	untouched(t, outside)
}

// What is there is not taken over, whatever it is.
func TestExclusive(t *testing.T) {
	d, dir, _ := place(t)
	if err := errors.Join(d.WriteFile("file", []byte("first"), 0o600), d.Mkdir("dir", 0o755), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for what, write := range writes {
		if what == "ChownSocket" {
			continue
		}
		for _, name := range []string{"file", "dir", "fifo"} {
			if err := write(d, name); !errors.Is(err, os.ErrExist) {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	if data, err := d.ReadFile("file", 5); err != nil || string(data) != "first" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	if data, err := d.ReadFile("file", 4); err == nil {
		t.Errorf("more than the limit: %q", data)
	}
	if _, err := d.ReadFile("fifo", 100); err == nil {
		t.Error("a fifo was read")
	}
}

func TestNames(t *testing.T) {
	d, _, outside := place(t)
	for _, name := range []string{"", ".", "..", "/", "/etc", "../x", "a/../b", "a//b", "a/", "./a", "a\x00b", outside} {
		for what, write := range writes {
			if err := write(d, name); !errors.Is(err, errName) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
	if err := errors.Join(d.WriteFile("a", nil, 0o600), d.Mkdir("sub", 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/b", "../b", "", "."} {
		if err := d.Rename("a", name); !errors.Is(err, errName) {
			t.Errorf("rename to %q: %v", name, err)
		}
		if err := d.Link("a", name); !errors.Is(err, errName) {
			t.Errorf("link to %q: %v", name, err)
		}
	}
}

// The mode is the one asked for under any umask, and nothing temporary stays.
func TestModes(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d, dir, _ := place(t)
	err := errors.Join(d.MkdirAll("a/b", 0o755), d.WriteFile("a/b/c", []byte("x"), 0o644), d.Replace("d", []byte("1"), 0o640), d.Replace("d", []byte("2"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"a": fs.ModeDir | 0o755, "a/b": fs.ModeDir | 0o755, "a/b/c": 0o644, "d": 0o644} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

func TestChownSocket(t *testing.T) {
	d, dir, _ := place(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(filepath.Join(dir, "s"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := d.ChownSocket("s", os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "s")); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := errors.Join(d.WriteFile("f", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := d.ChownSocket("f", os.Getuid(), os.Getgid()); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a file: %v", err)
	}
}

func TestT10TmpfsIsBounded(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	d, _, _ := place(t)
	if err := d.Mkdir("m", 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := d.MountTmpfs("m", Limits{Bytes: 10000, Inodes: 3}, unix.MS_NOSUID|unix.MS_NODEV)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Unmount("m"); err != nil {
			t.Error(err)
		}
	}()
	defer m.Close()
	if err := m.WriteFile("a", []byte(strings.Repeat("x", 10000)), 0o644); err != nil {
		t.Error(err)
	}
	if err := m.WriteFile("b", []byte(strings.Repeat("x", 10000)), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than there is room: %v", err)
	}
	if err := m.WriteFile("c", nil, 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more files than there is room: %v", err)
	}
	if err := m.SetReadOnly(unix.MS_NOSUID | unix.MS_NODEV); err != nil {
		t.Error(err)
	}
	if err := m.Remove("a"); !errors.Is(err, unix.EROFS) {
		t.Errorf("remove from a read-only file system: %v", err)
	}
}

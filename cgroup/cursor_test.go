package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nest makes directories of this name in each other, without a path.
func nest(t *testing.T, dir, name string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, openDir, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, openDir, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The walk itself needs no cgroups: directories without files are removed in
// the same way.
func TestTree(t *testing.T) {
	const depth, wide = 500, 700
	name := strings.Repeat("n", 255)
	dir := t.TempDir()
	nest(t, dir, name, depth)
	for _, sub := range []string{"a", "b", "b/" + name[:100]} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range wide {
		if err := os.MkdirAll(filepath.Join(dir, "a", name[:i%200+1]+string(rune('a'+i%26)), "below"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := openCursor(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	before, most, seen := openFiles(t), 0, 0
	if err := c.visit(func(int) {
		seen++
		if seen%100 == 0 {
			most = max(most, openFiles(t))
		}
	}); err != nil {
		t.Fatalf("%s: %v", c.where(), err)
	}
	if seen < 1+depth+3 || most > before+1 {
		t.Errorf("visited %d directories with %d files open, before %d", seen, most, before)
	}
	// The walk has come back to the top.
	if len(c.above) != 0 {
		t.Fatalf("the visit ends at %s", c.where())
	}
	if err := c.rewind(); err != nil {
		t.Fatal(err)
	}
	r := remover{cursor: c, deadline: time.Now().Add(time.Minute)}
	if err := r.clear(); err != nil {
		t.Fatalf("%s: %v", c.where(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if now := openFiles(t); now > before {
		t.Errorf("%d files are open, before %d", now, before)
	}
}

// A link is not followed, and a directory that was moved is not left upwards
// into another tree.
func TestTreeStays(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(outside, "kept"), 0o755), os.Symlink(outside, filepath.Join(dir, "link")),
		os.Mkdir(filepath.Join(dir, "sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	c, err := openCursor(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.down("link"); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		t.Errorf("down a link: %v", err)
	}
	if err := c.down("sub"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "sub"), filepath.Join(outside, "sub")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.up(); err == nil {
		t.Error("it went up to another directory")
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Error(err)
	}
}

// Directories that cannot be removed end the removal when its time is over.
func TestTreeBusy(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755), os.WriteFile(filepath.Join(dir, "a/b/file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := openCursor(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	r := remover{cursor: c, deadline: time.Now().Add(50 * time.Millisecond)}
	if err := r.clear(); !errors.Is(err, errTime) {
		t.Errorf("got %v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, "/sys/fs/cgroup"} {
		dirs := map[string]string{"": dir}
		if err := Kill(dirs, time.Second); err == nil {
			t.Errorf("Kill takes %s", dir)
		}
		if err := Remove(dirs, time.Second); err == nil {
			t.Errorf("Remove takes %s", dir)
		}
		if err := Limit(map[string]string{"": dir}); err == nil {
			t.Errorf("Limit takes %s", dir)
		}
	}
	if _, err := os.Stat(sub); err != nil {
		t.Error(err)
	}
	gone := map[string]string{"": filepath.Join(dir, "none"), "memory": ""}
	if err := errors.Join(Kill(gone, time.Second), Remove(gone, time.Second)); err != nil {
		t.Errorf("what is gone: %v", err)
	}
}

package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"containerd-shim-rich/initmode"
)

func TestT11MissingInVolumes(t *testing.T) {
	volume, outside := t.TempDir(), t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(volume, "a/b"), 0o755), os.Symlink(outside, filepath.Join(volume, "link")), os.WriteFile(filepath.Join(volume, "file"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	plan := &initmode.Plan{}
	for _, name := range []string{"lock", "a/b", "a/b/c/d", "a/x", "link", "link/x", "file", "lock/below"} {
		plan.MountPoints = append(plan.MountPoints, initmode.MountPoint{Volume: volume, Path: name})
	}
	plan.MountPoints = append(plan.MountPoints, initmode.MountPoint{Volume: filepath.Join(volume, "gone"), Path: "x"})
	points, err := MissingInVolumes(plan)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"lock", "a/b/c", "a/b/c/d", "a/x", "lock/below"}
	if len(points) != 1 || !slices.Equal(points[0].Paths, want) {
		t.Fatalf("got %+v, want %q", points, want)
	}
	// Made as libcontainer does, and used in part.
	err = errors.Join(os.MkdirAll(filepath.Join(volume, "lock/below"), 0o755), os.MkdirAll(filepath.Join(volume, "a/b/c/d"), 0o755),
		os.WriteFile(filepath.Join(volume, "a/x"), nil, 0o644), os.WriteFile(filepath.Join(volume, "a/b/c/theirs"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	// A directory that has the volume's path meanwhile is another one.
	moved := volume + ".moved"
	if err := errors.Join(os.Rename(volume, moved), os.MkdirAll(filepath.Join(volume, "lock"), 0o755), RemoveVolumePoints(points)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(volume, "lock")); err != nil {
		t.Errorf("removed from another directory: %v", err)
	}
	if err := errors.Join(os.RemoveAll(volume), os.Rename(moved, volume), RemoveVolumePoints(points)); err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string]bool{"lock": false, "a/x": false, "a/b/c/d": false, "a/b/c/theirs": true, "a/b": true, "link": true, "file": true} {
		if _, err := os.Lstat(filepath.Join(volume, name)); (err == nil) != left {
			t.Errorf("%s: %v", name, err)
		}
	}
}

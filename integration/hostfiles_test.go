package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostFolders are what a container's shim can be shown other files in than the host has.
var hostFolders = []string{"/etc", "/usr/share"}

// hostWritten are where such a shim can write, and finds nothing of the host's.
var hostWritten = []string{"/var/log"}

// hostFiles are files that a shim sees on its host and that the host does not have: in a mount namespace of the shim's
// own they lie over the host's folders.
type hostFiles struct {
	dir string
	// Runtime is what starts such a shim, in place of the runtime's name.
	Runtime string
}

// newHostFiles makes the files, named by their absolute paths. A shim that starts later sees them; one that runs may
// not see what is changed.
func newHostFiles(t testing.TB, files map[string]string) *hostFiles {
	t.Helper()
	// Not t.TempDir(): an overlay's lower folders are divided by colons and commas, which its name may hold.
	dir, err := os.MkdirTemp(private.Dir, "host-")
	if err != nil {
		t.Fatal(err)
	}
	// The shims have ended, with their mounts, when the cleanup of the tasks is done.
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &hostFiles{dir: dir}
	mounts := ""
	for _, folder := range hostFolders {
		lower := h.Path(folder)
		if err := os.MkdirAll(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		mounts += fmt.Sprintf("mount -t overlay -o ro,lowerdir=%s:%s overlay %s\n", lower, folder, folder)
	}
	for _, folder := range hostWritten {
		if err := os.MkdirAll(h.Path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
		mounts += fmt.Sprintf("mount --bind %s %s\n", h.Path(folder), folder)
	}
	h.Runtime = shimAfter(t, dir, mounts)
	for name, content := range files {
		h.Write(t, name, content, 0o644)
	}
	return h
}

// shimAfter makes a program in dir that starts the shim in a mount namespace of its own, which these commands have changed.
func shimAfter(t testing.TB, dir, commands string) string {
	t.Helper()
	shim := filepath.Join(dir, "containerd-shim-rich-v2")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation private sh -ec '\n%sexec %s \"$@\"' sh \"$@\"\n",
		commands, buildPath("bin/containerd-shim-rich-v2"))
	if err := os.WriteFile(shim, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return shim
}

// Path is where a file of the shim's host is for the test.
func (h *hostFiles) Path(name string) string { return filepath.Join(h.dir, "root", name) }

// Write makes one more file, for example a program.
func (h *hostFiles) Write(t testing.TB, name, content string, mode fs.FileMode) {
	t.Helper()
	known := false
	for _, folder := range hostFolders {
		known = known || strings.HasPrefix(name, folder+"/")
	}
	if !known {
		t.Fatalf("%s is not below one of %v", name, hostFolders)
	}
	path := h.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// withHost runs the container by a shim that sees these files.
func withHost(h *hostFiles) taskOption {
	return func(s *taskSettings) { s.runtime = h.Runtime }
}

// withHostFile is withHost with one file.
func withHostFile(t testing.TB, name, content string) taskOption {
	t.Helper()
	return withHost(newHostFiles(t, map[string]string{name: content}))
}

// The shim sees the files, and the host does not.
func TestHostFiles(t *testing.T) {
	const name = "/etc/containerd/rich.toml"
	before, beforeErr := os.ReadFile(name)
	h := newHostFiles(t, map[string]string{name: "init = \"dumb-init\"\n"})
	compare := snapshotHost(t)
	got := runTask(t, imageBookworm, runLimit, withHost(h), withArgs("cat", "/proc/1/comm"))
	if want := (result{Stdout: "dumb-init\n"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	compare()
	if after, err := os.ReadFile(name); string(after) != string(before) || (err == nil) != (beforeErr == nil) {
		t.Errorf("%s of the host changed to %q, %v", name, after, err)
	}
}

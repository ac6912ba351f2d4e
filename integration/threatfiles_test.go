package integration

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"golang.org/x/sys/unix"
)

// What a user of the host can have written, or what would block, is not read as the host's file or as runtime options, and
// Create says what to do.
func TestT12HostFile(t *testing.T) {
	const file = "/etc/containerd/rich.toml"
	for _, c := range []struct {
		name  string
		make  func(h *hostFiles) error
		words []string
	}{
		{"of another user", func(h *hostFiles) error { return os.Chown(h.Path(file), 1000, 0) }, []string{"user 1000", "chown it to root"}},
		{"writable", func(h *hostFiles) error { return os.Chmod(h.Path(file), 0o666) }, []string{"0666", "chmod go-w"}},
		{"fifo", func(h *hostFiles) error {
			return errors.Join(os.Remove(h.Path(file)), unix.Mkfifo(h.Path(file), 0o600))
		}, []string{"not a regular file"}},
		{"in a folder of another user", func(h *hostFiles) error { return os.Chown(filepath.Dir(h.Path(file)), 1000, 0) }, []string{"its directory", "user 1000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHostFiles(t, map[string]string{file: "init = \"dumb-init\"\n"})
			if err := c.make(h); err != nil {
				t.Fatal(err)
			}
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBusybox, withHost(h), withArgs("true"))
			expectError(t, err, append(c.words, file))
			compare()
		})
	}
	t.Run("runtime options", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "options.toml")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		compare := snapshotHost(t)
		_, err := tryTask(t, imageBusybox, withRuntimeOptions(&runtimeoptions.Options{ConfigPath: path}), withArgs("true"))
		expectError(t, err, []string{"ConfigPath", path, "not a regular file"})
		compare()
	})
}

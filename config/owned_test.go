package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// loadBounded loads a host's file, and fails the test if that blocks.
func loadBounded(t *testing.T, path string) (Host, error) {
	t.Helper()
	type result struct {
		host Host
		err  error
	}
	done := make(chan result, 1)
	go func() {
		host, err := Load(path)
		done <- result{host, err}
	}()
	select {
	case r := <-done:
		return r.host, r.err
	case <-time.After(10 * time.Second):
		t.Fatal("it blocks")
		panic("not reached")
	}
}

// The host's file says what root runs: what others can write, or what would
// block, is refused, with the file and the way out.
func TestT12HostFile(t *testing.T) {
	const text = "init = \"systemd\"\n"
	file := func(mode os.FileMode) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, "rich.toml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for _, tc := range []struct {
		name string
		make func(dir string) error
		want []string // nil if it is read
	}{
		{"root's", file(0o644), nil},
		{"for root alone", file(0o400), nil},
		{"writable by others", file(0o646), []string{"0646", "chmod go-w"}},
		{"writable by its group", file(0o664), []string{"0664", "chmod go-w"}},
		{"fifo", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "rich.toml"), 0o600) }, []string{"not a regular file", "remove it"}},
		{"directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "rich.toml"), 0o755) }, []string{"not a regular file"}},
		{"device", func(dir string) error { return os.Symlink("/dev/zero", filepath.Join(dir, "rich.toml")) }, []string{"not a regular file"}},
		{"too large", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "rich.toml"), make([]byte, maxFile+1), 0o644)
		}, []string{"larger than"}},
		{"in a folder of others", func(dir string) error {
			if err := file(0o644)(dir); err != nil {
				return err
			}
			return os.Chmod(dir, 0o777)
		}, []string{"its directory ", "0777", "chmod go-w"}},
		{"in a folder like /tmp", func(dir string) error {
			if err := file(0o644)(dir); err != nil {
				return err
			}
			return os.Chmod(dir, 0o777|os.ModeSticky)
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "containerd")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.make(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "rich.toml")
			host, err := loadBounded(t, path)
			if tc.want == nil {
				if err != nil || host.Options["init"].text != "systemd" {
					t.Fatalf("got %+v, %v", host, err)
				}
				return
			}
			if err == nil {
				t.Fatal("it was read")
			}
			for _, word := range append(tc.want, path) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
	if host, err := loadBounded(t, filepath.Join(t.TempDir(), "none")); err != nil || len(host.Options) > 0 {
		t.Errorf("no file: %+v, %v", host, err)
	}
}

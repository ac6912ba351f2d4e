package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/child"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/life"
)

// The files that a later program reads tell their version, and one that is
// too new is not misread.
func TestT5StoredFormat(t *testing.T) {
	b := bundle.Bundle(t.TempDir())
	if err := b.Make(); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{bundle.MadeFile: bundle.Made{Rootfs: "/r"}, bundle.ExitFile: bundle.Exit{PID: 7, Status: 3}} {
		if err := b.Store(name, v); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(b.Path(name))
		if err != nil || !strings.Contains(string(data), `"version":1`) {
			t.Errorf("%s holds %s, %v", name, data, err)
		}
		if err := b.Load(name, v2of(v)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for content, want := range map[string]error{
		`{"rootfs":"/r"}`: nil, `{"version":0,"rootfs":"/r"}`: nil, `{"version":1,"rootfs":"/r"}`: nil, `{"version":2,"rootfs":["/r"]}`: bundle.ErrNewer, `{"rootfs":7,"version":9}`: bundle.ErrNewer,
	} {
		if err := os.WriteFile(b.Path(bundle.MadeFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := facts(b, "id")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", content, err)
		}
		if want == nil && m.Rootfs != "/r" || want != nil && (m.Rootfs != filepath.Join(string(b), bundle.RootfsDir) || !m.Mounted) {
			t.Errorf("%s: got %+v", content, m)
		}
	}
}

func v2of(v any) any {
	switch v.(type) {
	case bundle.Made:
		return new(bundle.Made)
	case bundle.Exit:
		return new(bundle.Exit)
	}
	panic("not reached")
}

// What a newer program has written does not keep the rest from being removed.
func TestT5RemainsOfNewer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("libcontainer keeps containers for root only")
	}
	b := bundle.Bundle(t.TempDir())
	if err := b.Make(); err != nil {
		t.Fatal(err)
	}
	if err := b.MakeRun([]initmode.File{{Path: "launch", Mode: 0o755}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bundle.MadeFile, hooks.RecordFile, bundle.ExitFile} {
		if err := os.WriteFile(b.Path(name), []byte(`{"version":1000,"poststop":"?","due":true,"state":{}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exit, err := remains(string(b), child.New())
	if !errors.Is(err, bundle.ErrNewer) {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{bundle.MadeFile, hooks.RecordFile, bundle.ExitFile} {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if exit.Status != life.StatusKilled {
		t.Errorf("exit status %d", exit.Status)
	}
	if _, err := os.Lstat(b.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), string(b)) {
		t.Errorf("mounts are left, %v", err)
	}
}

package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-rich/child"
)

// The files that a later program reads tell their version, and one that is
// too new is not misread.
func TestT5StoredFormat(t *testing.T) {
	b := bundle(t.TempDir())
	if err := b.make(); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{madeFile: made{Rootfs: "/r"}, hooksFile: &hookRecord{Next: 1}, exitFile: exitRecord{PID: 7, Status: 3}} {
		if err := b.store(name, v); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(b.path(name))
		if err != nil || !strings.Contains(string(data), `"version":1`) {
			t.Errorf("%s holds %s, %v", name, data, err)
		}
		if err := b.load(name, v2of(v)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for content, want := range map[string]error{
		`{"rootfs":"/r"}`: nil, `{"version":0,"rootfs":"/r"}`: nil, `{"version":1,"rootfs":"/r"}`: nil, `{"version":2,"rootfs":["/r"]}`: errNewer, `{"rootfs":7,"version":9}`: errNewer,
	} {
		if err := os.WriteFile(b.path(madeFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := b.facts("id")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", content, err)
		}
		if want == nil && m.Rootfs != "/r" || want != nil && (m.Rootfs != filepath.Join(string(b), rootfsDir) || !m.Mounted) {
			t.Errorf("%s: got %+v", content, m)
		}
	}
}

func v2of(v any) any {
	switch v.(type) {
	case made:
		return new(made)
	case exitRecord:
		return new(exitRecord)
	}
	return new(hookRecord)
}

// What a newer program has written does not keep the rest from being removed.
func TestT5RemainsOfNewer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("libcontainer keeps containers for root only")
	}
	b := bundle(t.TempDir())
	if err := b.make(); err != nil {
		t.Fatal(err)
	}
	if err := b.makeRun(testFiles); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{madeFile, hooksFile, exitFile} {
		if err := os.WriteFile(b.path(name), []byte(`{"version":1000,"poststop":"?","due":true,"state":{}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exit, err := remains(string(b), child.New())
	if !errors.Is(err, errNewer) {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{madeFile, hooksFile, exitFile} {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if exit.Status != statusKilled {
		t.Errorf("exit status %d", exit.Status)
	}
	if _, err := os.Lstat(b.path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), string(b)) {
		t.Errorf("mounts are left, %v", err)
	}
}

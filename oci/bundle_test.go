package oci

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/initmode"
)

func TestLoadAndStore(t *testing.T) {
	dir := t.TempDir()
	spec := baseSpec()
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second Create must start from the original again
		loaded, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(loaded); !bytes.Equal(got, data) {
			t.Fatalf("loaded %s", got)
		}
		out := Rewrite(loaded, &initmode.Plan{Init: "dumb-init", Shape: initmode.ChildOfReaper, Process: &specs.Process{Args: []string{"wrapped"}}})
		if err := Store(dir, out); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("left in the bundle: %v", entries)
	}
	for _, bad := range []string{"", "{", "[]"} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

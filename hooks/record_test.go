package hooks

import (
	"os"
	"strings"
	"testing"
	"time"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/config"
)

// The record that a later program reads tells its version.
func TestT5RecordFormat(t *testing.T) {
	b := bundle.Bundle(t.TempDir())
	if err := b.Make(); err != nil {
		t.Fatal(err)
	}
	s := None(Owner{Bundle: b})
	s.record.Poststop = []config.Hook{{Path: "/bin/true"}}
	s.Starting(time.Unix(1, 0))
	data, err := os.ReadFile(b.Path(RecordFile))
	if err != nil || !strings.Contains(string(data), `"version":1`) {
		t.Errorf("it holds %s, %v", data, err)
	}
	var back record
	if err := b.Load(RecordFile, &back); err != nil || !back.Due || !back.Started.Equal(time.Unix(1, 0)) {
		t.Errorf("%+v, %v", back, err)
	}
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, d := range []string{"a", "b", "b/prog"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"a/plain": 0o644, "b/plain": 0o755, "a/prog": 0o755, "here": 0o755} {
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for name, test := range map[string]struct {
		name, path string
		want       string
		err        error
	}{
		"first":               {"prog", a + ":" + b, a + "/prog", nil},
		"a directory":         {"prog", b + ":" + a, a + "/prog", nil},
		"not executable":      {"plain", a + ":" + b, b + "/plain", nil},
		"nowhere":             {"none", a + ":" + b, "", errNotInPath},
		"no path":             {"here", "", "", errNotInPath},
		"an empty element":    {"here", ":" + a, "", errRelative},
		"a dot":               {"here", ".", "", errRelative},
		"an absolute one 1st": {"prog", a + "::.", a + "/prog", nil},
		"a slash":             {"./here", a, "./here", nil},
		"a slash, missing":    {"./none", a, "./none", unix.ENOENT},
		"a slash, directory":  {"./b", a, "./b", unix.EISDIR},
		"a slash, no program": {"a/plain", a, "a/plain", unix.EACCES},
		"dot":                 {".", a, "", errNotInPath},
		"dots":                {"..", a, "", errNotInPath},
		"nothing":             {"", a, "", errNotInPath},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := lookPath(test.name, test.path)
			if !errors.Is(err, test.err) || got != test.want && err == nil {
				t.Errorf("got %q, %v, want %q, %v", got, err, test.want, test.err)
			}
		})
	}
}

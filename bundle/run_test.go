package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
)

var testFiles = []initmode.File{
	{Path: "launch", Mode: 0o755},
	{Path: "units/a.service", Mode: 0o644, Data: []byte(strings.Repeat("x", 5000))},
	{Path: "units/b.service", Mode: fs.ModeSymlink, Link: "/dev/null"},
	{Path: "components/c", Mode: fs.ModeDir | 0o755},
}

// A file that has the place of a link is not written through it.
func TestT1FilesThroughLinks(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]initmode.File{
		"file":        {{Path: "units/a", Mode: fs.ModeSymlink, Link: victim}, {Path: "units/a", Mode: 0o644, Data: []byte("ours")}},
		"directory":   {{Path: "units", Mode: fs.ModeSymlink, Link: filepath.Dir(victim)}, {Path: "units/victim", Mode: 0o644}},
		"new file":    {{Path: "units", Mode: fs.ModeSymlink, Link: filepath.Dir(victim)}, {Path: "units/new", Mode: 0o644}},
		"folder":      {{Path: "a", Mode: fs.ModeSymlink, Link: filepath.Dir(victim)}, {Path: "a/b", Mode: fs.ModeDir | 0o777}},
		"its mode":    {{Path: "a", Mode: fs.ModeSymlink, Link: filepath.Dir(victim)}, {Path: "a", Mode: fs.ModeDir | 0o777}},
		"link twice":  {{Path: "a", Mode: fs.ModeSymlink, Link: victim}, {Path: "a", Mode: fs.ModeSymlink, Link: "x"}},
		"device file": {{Path: "a", Mode: fs.ModeDevice | 0o666}},
	} {
		dir, err := hostfs.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFiles(dir, files); err == nil {
			t.Errorf("%s: no error", name)
		}
		dir.Close()
	}
	content, err := os.ReadFile(victim)
	info, statErr := os.Stat(victim)
	if err := errors.Join(err, statErr); err != nil || string(content) != "host" || info.Mode() != 0o600 {
		t.Errorf("the victim is %q, %v, %v", content, info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(victim)); err != nil || len(entries) != 1 {
		t.Errorf("beside it there are %v, %v", entries, err)
	}
}

// The run directory holds the files and little more, executes nothing, and
// goes with the rest.
func TestT10RunLimits(t *testing.T) {
	l, flags := runLimits(testFiles)
	if page := int64(os.Getpagesize()); page == 4096 && l.Bytes != 2*page+runRoom || l.Inodes != 6+runInodes {
		t.Errorf("the limits are %+v", l)
	}
	if flags != unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC {
		t.Errorf("the flags are %#x", flags)
	}
	script := initmode.File{Path: "s", Mode: 0o755, Data: []byte("#!/bin/sh\n")}
	if _, flags := runLimits([]initmode.File{script}); flags != unix.MS_NOSUID|unix.MS_NODEV {
		t.Errorf("with a script the flags are %#x", flags)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	b := Bundle(t.TempDir())
	if err := b.Make(); err != nil {
		t.Fatal(err)
	}
	if err := b.MakeRun(testFiles); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(b.Path(RunDir, "units/a.service")); err != nil || info.Size() != 5000 || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if err := b.Show(map[string]int{"starts": 1}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(b.Path(RunDir, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("1 MiB more: %v", err)
	}
	if err := b.Unmount(BinDir, RunDir); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(b.Path(RunDir)); err != nil || len(entries) > 0 {
		t.Errorf("afterwards there are %v, %v", entries, err)
	}
}

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"containerd-shim-rich/integration/containerdtest"
)

// hostState is what a container must not change for good: one readable line for each thing.
type hostState []string

// snapshotHost records what is there of the run, and what a container could damage, and returns a function that fails the test
// unless the host looks the same again, now or within a short time. Not for tests that run in parallel with others.
func snapshotHost(t testing.TB) (compare func()) {
	t.Helper()
	before, err := private.snapshot()
	if err != nil {
		t.Fatalf("look at the host: %v", err)
	}
	return func() {
		t.Helper()
		if diff := private.settle(before, patience(10*time.Second)); diff != "" {
			t.Errorf("the host changed (- before, + after):\n%s", diff)
		}
	}
}

// settle waits until the host looks as before, and returns the difference that stays.
func (d *daemon) settle(before hostState, limit time.Duration) string {
	var diff string
	err := poll(limit, func() error {
		after, err := d.snapshot()
		if err != nil {
			diff = err.Error()
			return err
		}
		if diff = before.diff(after); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	if err != nil {
		return diff
	}
	return ""
}

// diff returns the lines that differ, empty when there are none; of very many only the first.
func (before hostState) diff(after hostState) string {
	const limit = 50
	was, is := before.names(), after.names()
	var lines []string
	for _, line := range before {
		if _, found := slices.BinarySearch(after, line); !found && isChange(line, false, is) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range after {
		if _, found := slices.BinarySearch(before, line); !found && isChange(line, true, was) {
			lines = append(lines, "+ "+line)
		}
	}
	if more := len(lines) - limit; more > 0 {
		lines = append(lines[:limit], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// snapshot looks at what belongs to the run, and at what of the host a container could damage. Other runs and programs
// come and go meanwhile, with containers, mounts, cgroups, interfaces and devices of their own.
func (d *daemon) snapshot() (hostState, error) {
	var state hostState
	for _, look := range []func() ([]string, error){
		d.mountLines, d.cgroupLines, d.processLines, d.socketLines, d.fileLines,
		sysctlLines, func() ([]string, error) { return deviceLines("/dev") }, moduleLines, terminalLines, hierarchyLines,
	} {
		lines, err := look()
		if err != nil {
			return nil, err
		}
		state = append(state, lines...)
	}
	slices.Sort(state)
	return slices.Compact(state), nil
}

// mountLines are the mounts of the run, wherever in the host's tree they are, and those of the machine. A mount of the run
// lies in its folder, or shows something of it.
func (d *daemon) mountLines() ([]string, error) {
	mounts, err := containerdtest.Mounts()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range mounts {
		if !containerdtest.Mentions(m.Text+" "+m.Source, d.Dir) && !isSystemMount(m.Point) {
			continue
		}
		text := m.Text
		for n := 2; slices.Contains(lines, text); n++ {
			text = fmt.Sprintf("%s (%d)", m.Text, n) // one over another
		}
		lines = append(lines, text)
	}
	return lines, nil
}

// cgroupLines lists the cgroups of this run at any depth.
func (d *daemon) cgroupLines() ([]string, error) {
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, point := range points {
		ours := filepath.Join(point, d.Cgroup())
		err := walkFolders(ours, func(path string) {
			if path != ours {
				lines = append(lines, "cgroup "+path)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// walkFolders visits dir and the folders below, parents first; what goes away meanwhile is no error.
func walkFolders(dir string, visit func(path string)) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			visit(path)
		}
		return err
	})
}

func (d *daemon) processLines() ([]string, error) {
	processes, err := containerdtest.Processes(d.Dir)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, p := range processes {
		if p.Pid != d.Pid() {
			lines = append(lines, p.String())
		}
	}
	return lines, nil
}

// watched are the folders where neither a shim nor containerd may leave a file: the run's own, and the host's that a shim uses.
func (d *daemon) watched() []string {
	dirs := []string{"/run/rich", "/run/containerd/rich"}
	for _, sub := range []string{"state", "s", "tmp", "fifo", "root/io.containerd.runtime.v2.task"} {
		dirs = append(dirs, filepath.Join(d.Dir, sub))
	}
	return dirs
}

func (d *daemon) socketLines() ([]string, error) {
	content, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		path := strings.TrimPrefix(fields[len(fields)-1], "@")
		listening := len(fields) == 8 && fields[3] == "00010000" && !strings.HasPrefix(path, d.Address())
		if listening && slices.ContainsFunc(append(d.watched(), d.Dir), func(dir string) bool { return containerdtest.IsBelow(path, dir) }) {
			lines = append(lines, "socket "+path)
		}
	}
	return lines, nil
}

func (d *daemon) fileLines() ([]string, error) {
	mounts, err := containerdtest.Mounts()
	if err != nil {
		return nil, err
	}
	mounted := map[string]bool{}
	for _, m := range mounts {
		mounted[m.Point] = true
	}
	var lines []string
	for _, dir := range d.watched() {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case path == dir || entry.IsDir() && entry.Name() == testNamespace:
				// Made at first use, and kept for the next container.
				return nil
			}
			kind := "file"
			if entry.Type() == fs.ModeSocket {
				kind = "socket"
			}
			lines = append(lines, kind+" "+path)
			if entry.IsDir() && mounted[path] {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

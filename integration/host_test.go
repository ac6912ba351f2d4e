package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"containerd-shim-rich/cgroup"
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

type hostMount struct {
	point, text string
	source      string // file system, source and options of the file system
}

// readMounts returns the mounts of this mount namespace, in the order they were made.
func readMounts() ([]hostMount, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []hostMount
	for line := range strings.Lines(string(content)) {
		// 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw
		head, tail, _ := strings.Cut(strings.TrimSpace(line), " - ")
		fields, source := strings.Fields(head), strings.Fields(tail)
		if len(fields) < 6 || len(source) < 2 {
			return nil, fmt.Errorf("cannot read %q", line)
		}
		var propagation []string
		for _, optional := range fields[6:] {
			kind, _, _ := strings.Cut(optional, ":")
			propagation = append(propagation, kind)
		}
		point := unescapeMount(fields[4])
		text := strings.TrimSpace(fmt.Sprintf("mount %s %s %s from %s %s", point, fields[5], source[0], fields[3], strings.Join(propagation, " ")))
		mounts = append(mounts, hostMount{point, text, tail})
	}
	return mounts, nil
}

// unescapeMount undoes the octal escapes of /proc/self/mountinfo.
func unescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// mountLines are the mounts of the run, wherever in the host's tree they are, and those of the machine. A mount of the run
// lies in its folder, or shows something of it.
func (d *daemon) mountLines() ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range mounts {
		if !mentions(m.text+" "+m.source, d.dir) && !isSystemMount(m.point) {
			continue
		}
		text := m.text
		for n := 2; slices.Contains(lines, text); n++ {
			text = fmt.Sprintf("%s (%d)", m.text, n) // one over another
		}
		lines = append(lines, text)
	}
	return lines, nil
}

// mentions tells whether a text names a folder or something in it, and not another folder whose name begins like that.
func mentions(text, dir string) bool {
	for {
		i := strings.Index(text, dir)
		if i < 0 {
			return false
		}
		text = text[i+len(dir):]
		if text == "" || !strings.ContainsAny(text[:1], "0123456789") {
			return true
		}
	}
}

// cgroupMounts returns where cgroup hierarchies are mounted, of both versions.
func cgroupMounts() ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range mounts {
		if strings.Contains(m.text, " cgroup from ") || strings.Contains(m.text, " cgroup2 from ") {
			points = append(points, m.point)
		}
	}
	return points, nil
}

// cgroupLines lists the cgroups of this run at any depth.
func (d *daemon) cgroupLines() ([]string, error) {
	points, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, point := range points {
		ours := filepath.Join(point, d.cgroup())
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

// removeCgroups removes the cgroups of a run, and the parent of all runs when it is the last: another one may be about to make
// its first cgroup there.
func removeCgroups(dir string) error {
	points, err := cgroupMounts()
	if err != nil {
		return err
	}
	dirs := map[string]string{}
	for _, point := range points {
		dirs[point] = filepath.Join(point, cgroupParent, filepath.Base(dir))
	}
	err = cgroup.Remove(dirs, patience(10*time.Second))
	runs, globErr := filepath.Glob(filepath.Join(filepath.Dir(dir), runPrefix+"*"))
	if err := errors.Join(err, globErr); err != nil || len(runs) > 1 {
		return err
	}
	for _, point := range points {
		_ = os.Remove(filepath.Join(point, cgroupParent)) // fails while there are others in it, as it should
	}
	return nil
}

type hostProcess struct {
	pid  int
	text string
}

func (p hostProcess) String() string { return fmt.Sprintf("process %d %s", p.pid, p.text) }

// processesOf finds the processes of a run, but not this one: they name its folder in their command line, live in it, or are in its cgroups.
func processesOf(dir string) ([]hostProcess, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []hostProcess
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", entry.Name())
		// Each of these may fail because the process has just ended.
		commandLine, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		cgroups, _ := os.ReadFile(filepath.Join(proc, "cgroup"))
		root, _ := os.Readlink(filepath.Join(proc, "root"))
		cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
		if mentions(string(commandLine), dir) || strings.Contains(string(cgroups), "/"+filepath.Base(dir)+"/") ||
			isBelow(root, dir) || isBelow(cwd, dir) {
			text := strings.TrimSpace(strings.ReplaceAll(string(commandLine), "\x00", " "))
			if text == "" {
				status, _ := os.ReadFile(filepath.Join(proc, "status"))
				text = strings.Join(strings.Fields(string(status))[:min(4, len(strings.Fields(string(status))))], " ")
			}
			found = append(found, hostProcess{pid: pid, text: text})
		}
	}
	return found, nil
}

func (d *daemon) processLines() ([]string, error) {
	processes, err := processesOf(d.dir)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, p := range processes {
		if p.pid != d.command.Process.Pid {
			lines = append(lines, p.String())
		}
	}
	return lines, nil
}

// watched are the folders where neither a shim nor containerd may leave a file: the run's own, and the host's that a shim uses.
func (d *daemon) watched() []string {
	dirs := []string{"/run/rich", "/run/containerd/rich"}
	for _, sub := range []string{"state", "s", "tmp", "fifo", "root/io.containerd.runtime.v2.task"} {
		dirs = append(dirs, filepath.Join(d.dir, sub))
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
		listening := len(fields) == 8 && fields[3] == "00010000" && !strings.HasPrefix(path, d.address())
		if listening && slices.ContainsFunc(append(d.watched(), d.dir), func(dir string) bool { return isBelow(path, dir) }) {
			lines = append(lines, "socket "+path)
		}
	}
	return lines, nil
}

func (d *daemon) fileLines() ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	mounted := map[string]bool{}
	for _, m := range mounts {
		mounted[m.point] = true
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

// isBelow tells whether path is dir or in it.
func isBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

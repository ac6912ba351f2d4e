package containerdtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Mount is one of a mount namespace.
type Mount struct {
	Point, Type string
	// Text is a readable line.
	Text string
	// Source is the file system, its source and its options.
	Source string
}

// Mounts returns the mounts of this mount namespace, in the order they were made.
func Mounts() ([]Mount, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []Mount
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
		point := UnescapeMount(fields[4])
		text := strings.TrimSpace(fmt.Sprintf("mount %s %s %s from %s %s", point, fields[5], source[0], fields[3], strings.Join(propagation, " ")))
		mounts = append(mounts, Mount{point, source[0], text, tail})
	}
	return mounts, nil
}

// UnescapeMount undoes the octal escapes of /proc/self/mountinfo.
func UnescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// CgroupMounts returns where cgroup hierarchies are mounted, of both versions.
func CgroupMounts() ([]string, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range mounts {
		if m.Type == "cgroup" || m.Type == "cgroup2" {
			points = append(points, m.Point)
		}
	}
	return points, nil
}

// Process is one of a run.
type Process struct {
	Pid int
	// Text is its command line, or what it is without one.
	Text string
}

func (p Process) String() string { return fmt.Sprintf("process %d %s", p.Pid, p.Text) }

// Processes finds the processes of a run, but not this one: they name its folder in their command line, live in it, or are in
// its cgroups.
func Processes(dir string) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Process
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
		if Mentions(string(commandLine), dir) || strings.Contains(string(cgroups), "/"+filepath.Base(dir)+"/") ||
			IsBelow(root, dir) || IsBelow(cwd, dir) {
			text := strings.TrimSpace(strings.ReplaceAll(string(commandLine), "\x00", " "))
			if text == "" {
				status, _ := os.ReadFile(filepath.Join(proc, "status"))
				text = strings.Join(strings.Fields(string(status))[:min(4, len(strings.Fields(string(status))))], " ")
			}
			found = append(found, Process{Pid: pid, Text: text})
		}
	}
	return found, nil
}

// Mentions tells whether a text names a folder or something in it, and not another folder whose name begins like that.
func Mentions(text, dir string) bool {
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

// IsBelow tells whether path is dir or in it.
func IsBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

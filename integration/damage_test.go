package integration

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// What would be damage to the host, whoever it is that runs on it beside the tests.

// moves are values below /proc/sys that change by themselves: counters, what the kernel measures, and random numbers.
// What a program has registered (binfmt_misc), and whether a driver has complained (tainted), are no settings.
var moves = regexp.MustCompile(`^(kernel/(random/|ns_last_pid|pty/nr|sched_domain/|perf_event_max_sample_rate|tainted)|` +
	`fs/(dentry-state|inode-|file-nr|aio-nr|quota/|binfmt_misc/)|net/netfilter/nf_conntrack_(count|buckets))`)

// readSysctls reads all settings of the host.
func readSysctls() (map[string]string, error) {
	values := map[string]string{}
	root := os.DirFS("/proc/sys")
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) || moves.MatchString(name):
			return nil
		case err != nil || entry.IsDir():
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return nil // write-only
		}
		defer f.Close()
		value, err := io.ReadAll(io.LimitReader(f, 1<<16))
		if err == nil {
			values[name] = string(value)
		}
		return nil
	})
	if err == nil && len(values) < 100 {
		err = fmt.Errorf("only %d settings", len(values))
	}
	return values, err
}

// sysctlLines are the host's settings, its hostname among them. Whole folders of them come and go with network interfaces.
func sysctlLines() ([]string, error) {
	values, err := readSysctls()
	if err != nil {
		return nil, err
	}
	var lines []string
	for name, value := range values {
		lines = append(lines, fmt.Sprintf("sysctl %s %q", name, value))
	}
	return lines, nil
}

// plugged are the folders of /dev whose entries follow what is attached to the machine.
var plugged = []string{"block", "bus", "char", "disk", "dri", "input", "mapper", "snd"}

// deviceLines are the nodes, links and folders of a folder like /dev, but for those in other mounts, such as the terminals of
// others in /dev/pts, and for what programs keep there (sockets, pipes, files).
func deviceLines(dev string) ([]string, error) {
	var top unix.Stat_t
	if err := unix.Stat(dev, &top); err != nil {
		return nil, err
	}
	var lines []string
	err := filepath.WalkDir(dev, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return ignoreGone(err)
		}
		if entry.IsDir() && (st.Dev != top.Dev || filepath.Dir(path) == dev && slices.Contains(plugged, entry.Name())) {
			return fs.SkipDir
		}
		mode, number := entry.Type()|fs.FileMode(st.Mode&0o7777), ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			number = fmt.Sprintf(" number %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case unix.S_IFDIR, unix.S_IFLNK:
		default:
			mode &^= 0o7777 // only whether it has taken the place of a node
		}
		lines = append(lines, fmt.Sprintf("device %s %v owner %d:%d%s", path, mode, st.Uid, st.Gid, number))
		return nil
	})
	return lines, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// moduleLines are the loaded modules.
func moduleLines() ([]string, error) {
	content, err := os.ReadFile("/proc/modules")
	if err != nil {
		return nil, ignoreGone(err) // a kernel without
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		name, _, _ := strings.Cut(line, " ")
		lines = append(lines, "module "+name)
	}
	return lines, nil
}

// The requests of ioctl_console(2).
const (
	vtGetMode = 0x5601
	kdGetMode = 0x4B3B
	kdGKBMode = 0x4B44
)

// terminalLines tell which virtual terminal is shown, and who handles it how.
func terminalLines() ([]string, error) {
	active, err := os.ReadFile("/sys/class/tty/tty0/active")
	if err != nil {
		return nil, ignoreGone(err) // a host without
	}
	lines := []string{"terminal active " + strings.TrimSpace(string(active))}
	tty, err := os.OpenFile("/dev/tty0", os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return lines, nil
	}
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	for name, request := range map[string]uint{"mode": kdGetMode, "keyboard": kdGKBMode} {
		value, err := unix.IoctlGetInt(int(tty.Fd()), request)
		if err != nil {
			return nil, fmt.Errorf("terminal %s: %w", name, err)
		}
		lines = append(lines, fmt.Sprintf("terminal %s %d", name, value))
	}
	// struct vt_mode begins with the mode, a byte: who switches. It fits in the 8 bytes.
	mode, err := unix.IoctlGetUint32(int(tty.Fd()), vtGetMode)
	if err != nil {
		return nil, fmt.Errorf("terminal switching: %w", err)
	}
	return append(lines, fmt.Sprintf("terminal switching %d", mode&0xff)), nil
}

// initCgroups are cgroups at the top of a hierarchy that only an init makes. One that thinks it has the host to itself, in a
// container that sees the host's tree, makes them there.
var initCgroups = []string{"init.scope", "system.slice", "user.slice", "openrc"}

// hierarchyLines are the host's cgroup hierarchies, what inits have made at their tops, and the controllers that v2 passes on.
func hierarchyLines() ([]string, error) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		lines = append(lines, "hierarchy "+strings.SplitN(line, ":", 3)[1])
	}
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		return nil, err
	}
	for _, point := range points {
		for _, name := range initCgroups {
			if _, err := os.Lstat(filepath.Join(point, name)); err == nil {
				lines = append(lines, "cgroup "+filepath.Join(point, name))
			}
		}
		controllers, err := os.ReadFile(filepath.Join(point, "cgroup.subtree_control"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, name := range strings.Fields(string(controllers)) {
			lines = append(lines, fmt.Sprintf("controller %s/%s", point, name))
		}
	}
	return lines, nil
}

// systemMounts are where an init mounts what a machine needs. Nobody else does while a machine runs.
var systemMounts = []string{"/dev", "/proc", "/sys", "/etc", "/run/lock", "/run/rich"}

// isSystemMount tells whether a mount there is the machine's own.
func isSystemMount(point string) bool {
	// The kernel mounts these when anybody looks at them.
	if point == "/proc/sys/fs/binfmt_misc" || containerdtest.IsBelow(point, "/sys/kernel/debug") {
		return false
	}
	return slices.Contains([]string{"/", "/run", "/tmp", "/var/run", "/home"}, point) ||
		slices.ContainsFunc(systemMounts, func(dir string) bool { return containerdtest.IsBelow(point, dir) })
}

// isChange tells whether a line that has come or gone is one that a snapshot is taken for. known are the names in the other
// snapshot, as "kind name".
func isChange(line string, come bool, known map[string]bool) bool {
	kind, rest, _ := strings.Cut(line, " ")
	name, _, _ := strings.Cut(rest, " ")
	switch kind {
	case "process", "socket":
		// A shim ends a moment after the last of its containers has been deleted, those of earlier tests too.
		return come
	case "sysctl":
		return known[kind+" "+name]
	case "device":
		// Others set up loop devices and disks, and programs have sockets there.
		mode := strings.TrimPrefix(rest, name+" ")
		return known[kind+" "+name] || strings.HasPrefix(mode, "Dc") || !come && (mode[0] == 'L' || mode[0] == 'd')
	case "module", "controller":
		// Any program may need one. What is still needed is not there for a container to take away.
		return !come
	}
	return true
}

// names are those of the lines, as isChange knows them.
func (s hostState) names() map[string]bool {
	known := map[string]bool{}
	for _, line := range s {
		kind, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		known[kind+" "+name] = true
	}
	return known
}

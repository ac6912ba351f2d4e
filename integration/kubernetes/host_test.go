package kubernetes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// state is one readable line for each thing that must stay as it is.
type state []string

// diff returns the lines that differ, empty when there are none.
func (before state) diff(after state) string {
	var lines []string
	for _, line := range before {
		if !slices.Contains(after, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return strings.Join(lines, "\n")
}

// hostPaths are where a node's programs write when nothing keeps them from it.
var hostPaths = []string{
	"/etc/cni", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/opt/containerd", "/run/containerd", "/run/netns", "/run/rich",
	"/usr/libexec/kubernetes", "/usr/local/bin", "/usr/local/libexec", "/var/lib/cni", "/var/lib/containerd", "/var/lib/etcd",
	"/var/lib/kubelet", "/var/log/containers", "/var/log/pods",
}

// lookAtHost lists what a run could leave on the host: mounts and processes that name its folder, links, firewall rules,
// cgroups at the top of each hierarchy, files, and the settings of the kernel that no namespace has for itself.
func lookAtHost(run string) (state, error) {
	var found state
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if strings.Contains(line, run) || slices.ContainsFunc(hostPaths, func(dir string) bool { return fields[1] == dir }) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
		if fields[2] == "cgroup" || fields[2] == "cgroup2" {
			found = append(found, "mount "+strings.TrimSpace(line))
			entries, err := os.ReadDir(fields[1])
			if err != nil {
				return nil, err
			}
			for _, entry := range entries {
				// The parent of all runs, those of others too.
				if entry.IsDir() && entry.Name() != "rich-test" {
					found = append(found, "cgroup "+filepath.Join(fields[1], entry.Name()))
				}
			}
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, file := range commands {
		// Fails when the process has just ended.
		line, _ := os.ReadFile(file)
		if strings.Contains(string(line), run) {
			found = append(found, fmt.Sprintf("process %s %s", filepath.Base(filepath.Dir(file)), strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		found = append(found, "link "+link.Name())
	}
	rules, err := exec.Command("iptables-save").Output()
	if err != nil {
		return nil, fmt.Errorf("iptables-save: %w", err)
	}
	for line := range strings.Lines(string(rules)) {
		// Counters and comments with the time change by themselves.
		if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") {
			rule, _, _ := strings.Cut(strings.TrimSpace(line), " [")
			found = append(found, "firewall "+rule)
		}
	}
	for _, path := range hostPaths {
		if info, err := os.Lstat(path); err == nil {
			found = append(found, fmt.Sprintf("file %s changed %v", path, info.ModTime()))
		}
	}
	kernel, err := lookAtKernel()
	return append(found, kernel...), err
}

// changingSysctls change without anybody writing them, or count for the namespace of whoever reads.
var changingSysctls = []string{
	"fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr", "fs/quota", "fs/mqueue", "kernel/ns_last_pid",
	"kernel/pty/nr", "kernel/random", "kernel/keys", "kernel/hostname", "kernel/domainname", "net", "user", "vm/stat_refresh",
	"kernel/sched_domain", "debug", "dev/cdrom",
	// The kernel tunes it with the memory in use.
	"vm/lowmem_reserve_ratio",
}

// lookAtKernel lists what every process of the machine shares: settings, terminals, cgroup hierarchies and modules.
func lookAtKernel() (state, error) {
	var found state
	const sysctls = "/proc/sys"
	err := filepath.WalkDir(sysctls, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, sysctls+"/")
		if slices.ContainsFunc(changingSysctls, func(skip string) bool { return name == skip || strings.HasPrefix(name, skip+"/") }) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.Type().IsRegular() {
			// Some can only be written.
			if value, err := os.ReadFile(path); err == nil {
				found = append(found, fmt.Sprintf("sysctl %s = %s", name, strings.TrimSpace(string(value))))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	terminals, err := lookAtTerminals()
	if err != nil {
		return nil, err
	}
	found = append(found, terminals...)
	hierarchies, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(hierarchies)) {
		// Name, hierarchy, number of cgroups, enabled: the number is not ours alone.
		if fields := strings.Fields(line); len(fields) == 4 {
			found = append(found, fmt.Sprintf("controller %s in hierarchy %s, enabled %s", fields[0], fields[1], fields[3]))
		}
	}
	// /proc/modules is missing where the kernel cannot load any. This folder is always there, and has those that are built in
	// as well.
	modules, err := os.ReadDir("/sys/module")
	if err != nil {
		return nil, err
	}
	for _, module := range modules {
		found = append(found, "module "+module.Name())
	}
	return found, nil
}

// lookAtTerminals lists what an init or a getty would change at the machine's own terminals: their files, their settings,
// which of the virtual ones were ever opened, and which one is in front.
func lookAtTerminals() (state, error) {
	var found state
	for _, pattern := range []string{"/dev/tty*", "/dev/console"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range files {
			listing, err := exec.Command("stat", "--format=%n %A %U %G %t:%T", path).Output()
			if err != nil {
				return nil, err
			}
			found = append(found, "terminal "+strings.TrimSpace(string(listing)))
		}
	}
	// The kernel makes a virtual terminal when somebody opens it, and two files here for its screen. To look at the settings of
	// one that is not there would make it.
	screens, err := filepath.Glob("/sys/class/vc/vcs[0-9]*")
	if err != nil {
		return nil, err
	}
	devices, err := filepath.Glob("/dev/ttyS*")
	if err != nil {
		return nil, err
	}
	for _, screen := range screens {
		found = append(found, "opened "+filepath.Base(screen))
		devices = append(devices, "/dev/tty"+strings.TrimPrefix(filepath.Base(screen), "vcs"))
	}
	for _, device := range append(devices, "/dev/console") {
		// Fails for what has no hardware, and says so.
		settings, _ := exec.Command("stty", "-F", device, "-a").CombinedOutput()
		found = append(found, fmt.Sprintf("settings of %s: %s", device, strings.Join(strings.Fields(string(settings)), " ")))
	}
	for _, name := range []string{"tty0", "console"} {
		// Missing on a machine without a screen.
		active, err := os.ReadFile("/sys/class/tty/" + name + "/active")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		found = append(found, fmt.Sprintf("active %s: %s", name, strings.TrimSpace(string(active))))
	}
	return found, nil
}

// lookAtUsers lists the processes that have a terminal of the machine as their controlling one, or have it open, of those
// that this namespace has.
func lookAtUsers() (state, error) {
	var found state
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, file := range stats {
		// Fails when the process has just ended.
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// The name is in parentheses and may hold anything; after it come state, parent, group, session, terminal.
		end := strings.LastIndexByte(string(content), ')')
		fields := strings.Fields(string(content[end+1:]))
		number, err := strconv.Atoi(fields[4])
		if err != nil {
			return nil, err
		}
		// Those of the pseudo terminals are 136 to 143; 0 is none.
		if major := number >> 8 & 0xfff; major != 0 && (major < 136 || major > 143) {
			found = append(found, fmt.Sprintf("process %s has terminal %d:%d", content[:end+1], major, number&0xff))
		}
		files, _ := os.ReadDir(filepath.Join(filepath.Dir(file), "fd"))
		for _, entry := range files {
			var at syscall.Stat_t
			path := filepath.Join(filepath.Dir(file), "fd", entry.Name())
			if syscall.Stat(path, &at) != nil || at.Mode&syscall.S_IFMT != syscall.S_IFCHR {
				continue
			}
			// 4 are the virtual and serial ones, 5:0 is whatever the own one is, 5:1 the console, 5:2 makes pseudo terminals.
			if major, minor := at.Rdev>>8&0xfff, at.Rdev&0xff; major == 4 || major == 5 && minor < 2 {
				found = append(found, fmt.Sprintf("process %s has %d:%d open", content[:end+1], major, minor))
			}
		}
	}
	return found, nil
}

// lookAtNetwork lists what is of the network namespace of this process, but for the links of pods, which come and go, and
// for what these do to the bridge.
func lookAtNetwork() (state, error) {
	var found state
	for _, what := range []string{"link", "address", "route", "rule"} {
		for _, family := range []string{"-4", "-6"} {
			text, err := exec.Command("ip", "-o", family, what, "show").Output()
			if err != nil {
				return nil, fmt.Errorf("ip %s %s: %w", family, what, err)
			}
			for line := range strings.Lines(string(text)) {
				if !strings.Contains(line, "veth") && !strings.Contains(line, "pods0") {
					found = append(found, fmt.Sprintf("%s %s %s", what, family, strings.TrimSpace(line)))
				}
			}
		}
	}
	const sysctls = "/proc/sys/net"
	err := filepath.WalkDir(sysctls, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			// A link has just gone.
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		name := strings.TrimPrefix(path, sysctls+"/")
		if strings.Contains(name, "/veth") || name == "netfilter/nf_conntrack_count" || !entry.Type().IsRegular() {
			return nil
		}
		// Some can only be written.
		if value, err := os.ReadFile(path); err == nil {
			found = append(found, fmt.Sprintf("sysctl net/%s = %s", name, strings.TrimSpace(string(value))))
		}
		return nil
	})
	return found, err
}

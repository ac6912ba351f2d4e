package kubernetes

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	terminals, err := filepath.Glob("/dev/tty*")
	if err != nil {
		return nil, err
	}
	consoles, err := filepath.Glob("/dev/console")
	if err != nil {
		return nil, err
	}
	for _, path := range append(terminals, consoles...) {
		listing, err := exec.Command("stat", "--format=%n %A %U %G %t:%T", path).Output()
		if err != nil {
			return nil, err
		}
		found = append(found, "terminal "+strings.TrimSpace(string(listing)))
	}
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
	modules, err := os.ReadFile("/proc/modules")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for line := range strings.Lines(string(modules)) {
		name, _, _ := strings.Cut(line, " ")
		found = append(found, "module "+name)
	}
	return found, nil
}

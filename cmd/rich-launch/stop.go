package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long the command may take, as under systemd.
	stopTimeout = 90 * time.Second
	stopPoll    = 20 * time.Millisecond
)

// allComponents is the argument of stop that means all of them.
const allComponents = "--components"

// stop asks the launcher that has the command to stop it, as an init does with
// TERM, and waits for its end: some inits give a service next to no time. It
// always succeeds, like event.
func stop() int { return stopThose(isApp) }

// stopComponents does the same with the component of that name, or with all.
func stopComponents(name string) int {
	return stopThose(func(pid int) bool { return isComponent(pid, name) })
}

func stopThose(meant func(pid int) bool) int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && meant(pid) && syscall.Kill(pid, syscall.SIGTERM) == nil {
			pids = append(pids, pid)
		}
	}
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline) && slices.ContainsFunc(pids, meant); {
		time.Sleep(stopPoll)
	}
	return 0
}

// isApp reports whether a process is this program with the verb app.
func isApp(pid int) bool {
	args := launcherArgs(pid)
	return len(args) > 0 && args[0] == "app"
}

// isComponent reports whether a process runs the component of that name.
func isComponent(pid int, name string) bool {
	args := launcherArgs(pid)
	return len(args) >= 2 && args[0] == "component" && (name == allComponents || args[1] == name)
}

// launcherArgs returns the arguments of a process if it is this program. A
// zombie has no arguments any more.
func launcherArgs(pid int) []string {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return nil
	}
	theirs, err := os.Stat(filepath.Join(proc, "exe"))
	if err != nil {
		return nil
	}
	ours, err := os.Stat("/proc/self/exe")
	if err != nil || !os.SameFile(theirs, ours) {
		return nil
	}
	var args []string
	for _, arg := range bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})[1:] {
		args = append(args, string(arg))
	}
	return args
}

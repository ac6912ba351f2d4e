package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long the CMD may take, as under systemd.
	stopTimeout = 90 * time.Second
	stopPoll    = 20 * time.Millisecond
)

// stop asks the launcher that has the CMD to stop it, as an init does with
// TERM, and waits for its end: some inits give a service next to no time. It
// always succeeds, like event.
func stop() int {
	pid := findApp()
	if pid == 0 || syscall.Kill(pid, syscall.SIGTERM) != nil {
		return 0
	}
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline) && isApp(pid); {
		time.Sleep(stopPoll)
	}
	return 0
}

// findApp returns the process that runs the verb app, 0 if there is none.
func findApp() int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && isApp(pid) {
			return pid
		}
	}
	return 0
}

// isApp reports whether a process is this program with the verb app. A
// zombie has no arguments any more.
func isApp(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	args, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil || !bytes.HasSuffix(args, []byte("\x00app\x00")) || bytes.Count(args, []byte{0}) != 2 {
		return false
	}
	theirs, err := os.Stat(filepath.Join(proc, "exe"))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(theirs, ours)
}

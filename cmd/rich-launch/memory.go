package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/pages"
)

// runtimeEnv is the launcher's own environment. What the init hands down is
// the container's, and a GODEBUG or GOMEMLIMIT meant for the command is none of
// the launcher's business.
//
// One processor, because the runtime allocates 20 KiB for each and a launcher
// waits on every node however large. No collections, because one every two
// minutes would touch all the memory that the waiting process saves; with the
// limit they come back before a launcher that passes on signals for years
// grows. And no preemption: it uses URG, which is then the init's alone.
var runtimeEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB", "GODEBUG=asyncpreemptoff=1"}

// restart runs the verb again with the launcher's own environment, which the
// Go runtime reads when it starts. A TERM that comes before catchSignals, within
// the first milliseconds, ends the launcher, as it ends any program.
func restart() int {
	err := execve("/proc/self/exe", os.Args, runtimeEnv)
	complain(os.Stderr, fmt.Sprintf("exec /proc/self/exe: %v", err))
	return exitLauncher
}

// setName gives the process the name that ps shows (PR_SET_NAME, cut to 15
// bytes): having started itself again from /proc/self/exe it is called "exe".
func setName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}

// windowPages is how much of the code the kernel maps at once at most, in
// pages.
const windowPages = 4

// filePages are those of the launcher's own file, once they have been given
// back.
var filePages pages.Areas

// releaseFilePages lets go of the pages of the launcher's own file, of which
// the kernel has mapped 64 KiB and more around whatever ran so far. Waiting
// needs few of them again.
func releaseFilePages() {
	if filePages == nil {
		filePages = pages.Static()
		filePages.Code().Split(uintptr(windowPages * unix.Getpagesize()))
	}
	filePages.Release()
}

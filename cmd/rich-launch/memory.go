package main

import (
	"golang.org/x/sys/unix"

	"containerd-shim-rich/pages"
)

// runtimeEnv is the launcher's own environment. What the init hands down is
// the container's, and a GODEBUG or GOMEMLIMIT meant for the CMD is none of
// the launcher's business.
//
// One processor, because the runtime allocates 20 KiB for each and a launcher
// waits on every node however large. No collections, because one every two
// minutes would touch all the memory that the waiting process saves; with the
// limit they come back before a launcher that passes on signals for years
// grows. And no preemption: it uses URG, which is then the init's alone.
var runtimeEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB", "GODEBUG=asyncpreemptoff=1"}

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

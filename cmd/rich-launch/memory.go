package main

import (
	"bytes"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
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
// pages, after splitMapping.
const windowPages = 4

// area is a mapping of the launcher's own file.
type area struct {
	start, size uintptr
	code        bool
}

// fileAreas are those that are never written to, in the order of addresses.
var fileAreas []area

// releaseFilePages lets go of the pages of the launcher's own file, of which
// the kernel has mapped 64 KiB and more around whatever ran so far. Waiting
// needs few of them again. A failure costs memory, nothing else.
func releaseFilePages() {
	if fileAreas == nil {
		fileAreas = findFileAreas()
		for _, a := range fileAreas {
			if a.code {
				splitMapping(a)
			}
		}
	}
	// The code comes first in the file and goes last: this runs on it.
	for _, a := range slices.Backward(fileAreas) {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, a.start, a.size, unix.MADV_DONTNEED)
	}
}

// splitMapping makes many mappings of one: the kernel maps no further than to
// the end of the one that it meets a page of. Every other one gets a hint of
// its own, or they would be merged.
func splitMapping(a area) {
	window := uintptr(windowPages * unix.Getpagesize())
	for offset := uintptr(0); offset < a.size; offset += 2 * window {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, a.start+offset, min(window, a.size-offset), unix.MADV_RANDOM)
	}
}

func findFileAreas() (areas []area) {
	// Not os.ReadFile, which would start the runtime's poller for it.
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	maps := make([]byte, 8<<10) // a static program has few
	n, err := unix.Read(fd, maps)
	unix.Close(fd)
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(maps[:n]) {
		// START-END PERMS OFFSET DEVICE INODE PATH, of proc_pid_maps(5)
		fields := bytes.Fields(line)
		if len(fields) < 6 || fields[5][0] != '/' || fields[1][1] == 'w' {
			continue
		}
		from, to, _ := bytes.Cut(fields[0], []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 == nil && err2 == nil {
			areas = append(areas, area{uintptr(start), uintptr(end - start), fields[1][2] == 'x'})
		}
	}
	return areas
}

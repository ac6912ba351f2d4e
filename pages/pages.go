// Package pages gives the pages of the program's own file back to the kernel.
//
// They are the page cache's, which all that run the same file share, and are
// mapped again by what needs them. But whoever adds up processes counts them for
// each, and around what a program runs the kernel maps much more than that.
package pages

import (
	"golang.org/x/sys/unix"
)

// Areas are parts of the address space that show the program's own file, the
// highest first. What fails on them costs memory, nothing else.
type Areas []area

type area struct {
	start, size uintptr
	code        bool
}

// Code are those of the areas that can be executed.
func (areas Areas) Code() (code Areas) {
	for _, a := range areas {
		if a.code {
			code = append(code, a)
		}
	}
	return code
}

// Release gives the pages back. The code comes first in the file and goes last:
// this runs on it, and is small enough to be inlined, so that a program that
// then waits needs no more of it than its own loop.
func (areas Areas) Release() {
	for _, a := range areas {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, a.start, a.size, unix.MADV_DONTNEED)
	}
}

// Split bounds how much of the file the kernel maps at once, by window in
// bytes, a multiple of the page size. Else that is 64 KiB and more (the kernel's
// fault_around_bytes), or a folio of the page cache, up to 2 MiB.
func (areas Areas) Split(window uintptr) {
	for _, a := range areas {
		a.split(window)
	}
}

// split makes many mappings of one: the kernel maps no further than to the
// end of the one that it meets a page of. Every other one gets a hint of its
// own, or they would be merged; which ones, their addresses say, so that what
// is split already stays so.
func (a area) split(window uintptr) {
	for start := a.start; start < a.start+a.size; {
		next := min(start-start%window+window, a.start+a.size)
		if start/window%2 == 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, start, next-start, unix.MADV_RANDOM)
		}
		start = next
	}
}

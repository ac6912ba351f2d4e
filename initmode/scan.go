package initmode

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A root file system is hostile, and what is read of it is the host's memory
// and time. Each file is read in pieces, and there is a budget for all that one
// Create looks at. Real ones need little of it: systemd tells what it is in its
// first 128 KiB, a static busybox has 2 MiB, a supervisor written in Go tens of
// MiB, of which one is read three times at most; 64 services to mask among 600
// units are 250,000 steps.
const (
	// maxBytes is how much is read, in bytes.
	maxBytes = 128 << 20
	// maxSteps is how many parts of paths are looked up.
	maxSteps = 1 << 19
)

var errTooMuch = errors.New("the root file system: what is to be looked at for an init is more than 128 MiB of programs, or too many files and links; " +
	"use a smaller image, or set init to \"dumb-init\" or \"none\"")

// budget is what is left to be looked at.
type budget struct {
	bytes, steps int64
	// err is errTooMuch when it is used up: what was found since is not all
	// that is there.
	err error
}

func newBudget() budget { return budget{bytes: maxBytes, steps: maxSteps} }

// read takes bytes from the budget.
func (b *budget) read(n int64) error {
	if b.bytes -= n; b.bytes < 0 {
		b.err = errTooMuch
	}
	return b.err
}

// step takes lookups from the budget.
func (b *budget) step(n int) error {
	if b.steps -= int64(n); b.steps < 0 {
		b.err = errTooMuch
	}
	return b.err
}

const (
	// windowSize is how much of a program is looked at at a time, in bytes.
	windowSize = 64 << 10
	// overlap is how much of it is looked at again with what follows, in
	// bytes: more than the longest string that is looked for.
	overlap = 256
)

// window is a piece of a program.
type window struct {
	data []byte
	at   int64 // of data in the file
	last bool  // nothing but a hole or the end follows
}

// whole reports whether a match that ends at a place in the window ends there
// in the program, too. One that does not will be whole in the next window.
func (w window) whole(end int) bool { return w.last || end < len(w.data) }

// scan looks through the first limit bytes of the regular file at a resolved
// path, window by window, until look has seen enough. Holes are left out.
func (r *Rootfs) scan(resolved string, limit int64, look func(window) (enough bool)) error {
	f, size, err := r.open(resolved)
	if err != nil {
		return err
	}
	defer f.Close()
	limit = min(limit, size)
	buf := make([]byte, overlap+min(windowSize, limit))
	for at := int64(0); at < limit; {
		var end int64
		at, end = data(f, at, limit)
		for kept := 0; at < end; {
			n := min(windowSize, end-at)
			if err := r.left.read(n); err != nil {
				return err
			}
			got, err := f.ReadAt(buf[kept:kept+int(n)], at)
			if got == 0 {
				return err
			}
			w := window{data: buf[:kept+got], at: at - int64(kept), last: at+int64(got) >= end}
			if look(w) {
				return nil
			}
			at += int64(got)
			kept = copy(buf, w.data[max(0, len(w.data)-overlap):])
		}
	}
	return nil
}

// data is where the next data of a file begins and ends (lseek(2), SEEK_DATA).
// A file system that does not know has data everywhere.
func data(f *os.File, at, limit int64) (begin, end int64) {
	begin, err := f.Seek(at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return limit, limit
	case err != nil || begin < at:
		return at, limit
	}
	end, err = f.Seek(begin, unix.SEEK_HOLE)
	if err != nil || end <= begin {
		end = limit
	}
	return min(begin, limit), min(end, limit)
}

// open opens the regular file at a resolved path.
func (r *Rootfs) open(resolved string) (f *os.File, size int64, err error) {
	// O_NONBLOCK: if the file was exchanged for a fifo, opening it must not
	// wait for a writer.
	f, err = r.root.OpenFile(inside(resolved), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", resolved)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

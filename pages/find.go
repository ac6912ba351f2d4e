package pages

import (
	"bytes"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Static finds the areas of a program that is linked statically and without C:
// it maps no other file, and has written to nothing that it can no longer write
// to. It costs less memory than Unwritten. There are none if /proc cannot be
// read.
func Static() Areas {
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
	return static(maps[:n])
}

// static finds in the text of proc_pid_maps(5) the mappings of files that
// cannot be written to.
func static(maps []byte) (areas Areas) {
	for line := range bytes.Lines(maps) {
		if m, ok := parse(line); ok && len(m.path) > 0 && m.path[0] == '/' && !m.writable() {
			areas = append(areas, m.area)
		}
	}
	slices.Reverse(areas)
	return areas
}

// Unwritten finds the areas of any program that have never been written to.
// There are none if /proc cannot be read.
func Unwritten() Areas {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	return unwritten(smaps, program)
}

// unwritten finds in the text of proc_pid_smaps(5) the mappings of a file that
// cannot be written to and have no page that differs from the file's. Some were
// written to once, while the program was loaded (GNU_RELRO): giving these pages
// back would undo it. They count as anonymous, or as swapped where the host has
// swapped them out.
func unwritten(smaps []byte, file string) (areas Areas) {
	var found area
	needs := map[string]bool{} // the counters of found that have to be 0 and have not been read
	for line := range bytes.Lines(smaps) {
		if m, ok := parse(line); ok {
			clear(needs)
			if string(m.path) == file && m.readable() && !m.writable() {
				found = m.area
				needs["Anonymous"], needs["Swap"] = true, true
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !needs[string(name)] {
			continue
		}
		if string(bytes.TrimSpace(value)) != "0 kB" {
			clear(needs)
			continue
		}
		if delete(needs, string(name)); len(needs) == 0 {
			areas = append(areas, found)
		}
	}
	slices.Reverse(areas)
	return areas
}

// mapping is a line of proc_pid_maps(5), which begins each entry of
// proc_pid_smaps(5), too.
type mapping struct {
	area
	perms []byte // as in "r-xp"
	path  []byte // empty if no file is mapped
}

func (m *mapping) readable() bool { return m.perms[0] == 'r' }
func (m *mapping) writable() bool { return m.perms[1] == 'w' }

// parse reads START-END PERMS OFFSET DEVICE INODE PATH. A path may have spaces.
func parse(line []byte) (m mapping, ok bool) {
	const beforePath = 5
	var fields [beforePath][]byte
	rest := bytes.TrimRight(line, "\n")
	for i := range fields {
		fields[i], rest, _ = bytes.Cut(rest, []byte(" "))
	}
	from, to, _ := bytes.Cut(fields[0], []byte("-"))
	start, err1 := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	if err1 != nil || err2 != nil || len(fields[1]) < len("rwxp") {
		return mapping{}, false
	}
	m = mapping{
		area:  area{start: uintptr(start), size: uintptr(end - start), code: fields[1][2] == 'x'},
		perms: fields[1],
		path:  bytes.TrimLeft(rest, " "),
	}
	return m, true
}

package shim

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

const (
	// restAfter is how long nothing may be asked of the shim before it gives
	// back the memory that it needed for what was.
	restAfter = time.Second
	// restPause is how long it keeps it at least when it had to take it again:
	// a probe each second must not pay for it each time.
	restPause = 3 * time.Second
	// collectAt is the growth of the heap, in percent of what is in use, that
	// a collection waits for. The library sets 40, with which one create has
	// several. With more than this the containers of a pod lie scattered in the heap,
	// and a rest can give less back.
	collectAt = 100
)

// rest gives memory back while the shim has nothing to do, as it has for most
// of its life.
type rest struct {
	look sync.Once // finds the code
	code []area

	mu    sync.Mutex
	timer *time.Timer // nil until something has been asked for
	last  time.Time   // when memory was given back
}

// area is a part of the address space.
type area struct{ start, size uintptr }

// UnaryServerInterceptor notes what is asked of the shim.
func (s *service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
		s.rest.busy()
		defer s.rest.busy()
		return method(ctx, unmarshal)
	}
}

// busy puts the rest off.
func (r *rest) busy() {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := max(restAfter, restPause-time.Since(r.last))
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, r.begin)
		return
	}
	r.timer.Reset(wait)
}

func (r *rest) begin() {
	r.look.Do(func() {
		r.code = codeAreas()
		for _, a := range r.code {
			a.split()
		}
	})
	debug.FreeOSMemory()
	// The code comes first in the file and goes last: this runs on it. What
	// fails costs memory, nothing else.
	for _, a := range slices.Backward(r.code) {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, a.start, a.size, unix.MADV_DONTNEED)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
}

// window is how much of the program's file the kernel maps at once at most,
// after split. Without it that is a folio of the page cache, up to 2 MiB.
const window = 64 << 10

// split makes many mappings of one: the kernel maps no further than to the
// end of the one that it meets a page of. Every other one gets a hint of its
// own, or they would be merged; which ones, their addresses say, so that what
// is split already stays so.
func (a area) split() {
	for start := a.start; start < a.start+a.size; {
		next := min(start-start%window+window, a.start+a.size)
		if start/window%2 == 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, start, next-start, unix.MADV_RANDOM)
		}
		start = next
	}
}

// codeAreas finds the mappings of the program's own file that have never been
// written to. Their pages stay in the page cache, which all shims share, and are
// mapped again by what needs them.
func codeAreas() []area {
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
func unwritten(smaps []byte, file string) (areas []area) {
	var found area
	needs := map[string]bool{} // the counters of found that have to be 0 and have not been read
	for s := bufio.NewScanner(bytes.NewReader(smaps)); s.Scan(); {
		var a area
		var end uintptr
		var perms string
		line := s.Text()
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a.start, &end, &perms); n == 3 {
			clear(needs)
			if a.size = end - a.start; strings.HasSuffix(line, " "+file) && perms[0] == 'r' && !strings.Contains(perms, "w") {
				found = a
				needs["Anonymous"], needs["Swap"] = true, true
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if !needs[name] {
			continue
		}
		if strings.TrimSpace(value) != "0 kB" {
			clear(needs)
			continue
		}
		if delete(needs, name); len(needs) == 0 {
			areas = append(areas, found)
		}
	}
	return areas
}

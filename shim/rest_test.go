package shim

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// mappedFiles is the Rss of this process less what is its own, in KiB.
func mappedFiles(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^Pss_File:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no Pss_File in\n%s", text)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRest gives back the program's code, and goes on running it.
func TestRest(t *testing.T) {
	areas := codeAreas()
	if len(areas) == 0 {
		t.Fatal("the program's code was not found")
	}
	sum := byte(0)
	for _, a := range areas {
		for offset := uintptr(0); offset < a.size; offset += 4096 {
			sum += *(*byte)(unsafe.Pointer(a.start + offset)) //nolint:govet // an address of /proc/self/smaps, not of Go's heap
		}
	}
	before := mappedFiles(t)
	var r rest
	r.begin()
	if after := mappedFiles(t); after > before/2 {
		t.Errorf("%d KiB of files are mapped, %d before (%d)", after, before, sum)
	}
	again := byte(0)
	for _, a := range areas {
		for offset := uintptr(0); offset < a.size; offset += 4096 {
			again += *(*byte)(unsafe.Pointer(a.start + offset)) //nolint:govet // as above
		}
	}
	if again != sum {
		t.Error("the program's code has changed")
	}
	r.busy()
	if !r.timer.Stop() {
		t.Error("nothing will give memory back after the next request")
	}
}

// smapsEntry is a mapping in the text of /proc/PID/smaps.
func smapsEntry(start, end, perms, file, anonymous, swap string) string {
	return fmt.Sprintf("%s-%s %s 00001000 fe:01 1234                       %s\n", start, end, perms, file) +
		"Size:               8192 kB\nRss:                 100 kB\nPss_Dirty:            0 kB\nReferenced:          100 kB\n" +
		"Anonymous:  " + anonymous + "\nLazyFree:              0 kB\nAnonHugePages:         0 kB\n" +
		"Swap:       " + swap + "\nSwapPss:               0 kB\nLocked:                0 kB\nVmFlags: rd mr mw me\n"
}

func TestUnwritten(t *testing.T) {
	const shim, none = "/usr/bin/shim", "         0 kB"
	smaps := smapsEntry("00400000", "00401000", "r--p", shim, none, none) +
		smapsEntry("00401000", "00500000", "r-xp", shim, none, none) +
		smapsEntry("00500000", "00510000", "r--p", shim, "        64 kB", none) + // GNU_RELRO
		smapsEntry("00510000", "00520000", "r--p", shim, none, "        64 kB") + // the same, swapped out
		smapsEntry("00520000", "00530000", "r--p", shim, "         4 kB", "        60 kB") +
		smapsEntry("00530000", "00540000", "rw-p", shim, none, none) +
		smapsEntry("00540000", "00550000", "---p", shim, none, none) +
		smapsEntry("7f0000000000", "7f0000001000", "r--p", "/usr/lib/libc.so.6", none, none) +
		smapsEntry("7f0000001000", "7f0000002000", "r--p", "", none, none) +
		smapsEntry("7f0000002000", "7f0000003000", "r-xp", shim, none, none)
	want := []area{{0x400000, 0x1000}, {0x401000, 0xff000}, {0x7f0000002000, 0x1000}}
	if got := unwritten([]byte(smaps), shim); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	// Cut off before it is known whether pages are swapped.
	if got := unwritten([]byte(smaps[:strings.Index(smaps, "Swap:")]), shim); len(got) != 0 {
		t.Errorf("got %x of half a mapping", got)
	}
}

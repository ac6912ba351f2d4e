package pages

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// smapsEntry is a mapping in the text of /proc/PID/smaps.
func smapsEntry(start, end, perms, file, anonymous, swap string) string {
	return fmt.Sprintf("%s-%s %s 00001000 fe:01 1234                       %s\n", start, end, perms, file) +
		"Size:               8192 kB\nRss:                 100 kB\nPss_Dirty:            0 kB\nReferenced:          100 kB\n" +
		"Anonymous:  " + anonymous + "\nLazyFree:              0 kB\nAnonHugePages:         0 kB\n" +
		"Swap:       " + swap + "\nSwapPss:               0 kB\nLocked:                0 kB\nVmFlags: rd mr mw me\n"
}

func TestUnwritten(t *testing.T) {
	const none = "         0 kB"
	for _, shim := range []string{"/usr/bin/shim", "/opt/a shim (deleted)"} {
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
		want := Areas{{0x7f0000002000, 0x1000, true}, {0x401000, 0xff000, true}, {0x400000, 0x1000, false}}
		if got := unwritten([]byte(smaps), shim); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		// Cut off before it is known whether pages are swapped.
		if got := unwritten([]byte(smaps[:strings.Index(smaps, "Swap:")]), shim); len(got) != 0 {
			t.Errorf("got %v of half a mapping", got)
		}
	}
}

func TestStatic(t *testing.T) {
	const maps = `00400000-004c8000 r-xp 00000000 fe:01 1234                               /run/rich/launch
004c8000-00590000 r--p 000c8000 fe:01 1234                               /run/rich/launch
00590000-0059a000 rw-p 00190000 fe:01 1234                               /run/rich/launch
0059a000-005c0000 rw-p 00000000 00:00 0 
c000000000-c000400000 rw-p 00000000 00:00 0 
7f0000000000-7f0000001000 r--p 00000000 00:00 0 
7ffd5b1e6000-7ffd5b1ea000 r--p 00000000 00:00 0                          [vvar]
7ffd5b1ea000-7ffd5b1ec000 r-xp 00000000 00:00 0                          [vdso]
7ffd5b1ec000-7ffd5`
	want := Areas{{0x4c8000, 0xc8000, false}, {0x400000, 0xc8000, true}}
	got := static([]byte(maps))
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := got.Code(); !slices.Equal(got, want[1:]) {
		t.Errorf("code: got %v, want %v", got, want[1:])
	}
}

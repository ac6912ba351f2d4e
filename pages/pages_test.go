package pages

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"unsafe"
)

// mappedFiles is what this process has of files, in KiB.
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

// sum reads a byte of every page.
func (areas Areas) sum() (sum byte) {
	for _, a := range areas {
		for offset := uintptr(0); offset < a.size; offset += 4096 {
			sum += *(*byte)(unsafe.Pointer(a.start + offset)) //nolint:govet // an address of /proc/self/smaps, not of Go's heap
		}
	}
	return sum
}

// TestRelease gives back the program's code, and goes on running it.
func TestRelease(t *testing.T) {
	areas := Unwritten()
	if len(areas) == 0 || len(areas.Code()) == 0 {
		t.Fatal("the program's code was not found")
	}
	areas.Split(16 << 10)
	sum, before := areas.sum(), mappedFiles(t)
	areas.Release()
	if after := mappedFiles(t); after > before/2 {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
	if areas.sum() != sum {
		t.Error("the program's code has changed")
	}
}

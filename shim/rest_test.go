package shim

import (
	"os"
	"regexp"
	"strconv"
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

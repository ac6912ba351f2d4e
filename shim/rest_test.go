package shim

import (
	"testing"
	"time"
)

// TestRest rests once nothing has been asked for for a while, and again after
// the next request.
func TestRest(t *testing.T) {
	r := newRest()
	rests := func() bool {
		for end := time.Now().Add(10 * restPause); time.Now().Before(end); time.Sleep(restAfter / 10) {
			if r.last.Load() != nil {
				return true
			}
		}
		return false
	}
	if !r.timer.Stop() {
		t.Error("a shim that nothing was asked of would never have rested, or has already")
	}
	r.busy()
	if r.last.Load() != nil {
		t.Error("it rests in a request")
	}
	if !rests() {
		t.Fatal("it does not rest")
	}
	if len(r.file) == 0 {
		t.Error("the program's own file was not found")
	}
	r.busy()
	if !r.timer.Stop() {
		t.Error("nothing will give memory back after the next request")
	}
}

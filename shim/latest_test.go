package shim

import (
	"sync"
	"testing"
)

// States come out in order, and the last one always, however fast they come.
func TestLatest(t *testing.T) {
	var mu sync.Mutex
	var got []int
	l := newLatest(func(n int) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, n)
	})
	l.put(1)
	l.flush()
	mu.Lock()
	if len(got) != 1 || got[0] != 1 {
		t.Errorf("got %v", got)
	}
	mu.Unlock()
	const most = 100000
	for n := 2; n <= most; n++ {
		l.put(n)
	}
	l.close()
	l.put(0)
	l.close()
	mu.Lock()
	defer mu.Unlock()
	if len(got) > 10*stateBurst || got[len(got)-1] != most {
		t.Errorf("%d states were written, the last is %d", len(got), got[len(got)-1])
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("out of order: %v", got)
		}
	}
}

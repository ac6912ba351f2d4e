package launcher

import (
	"sync"
	"sync/atomic"
	"testing"
)

// States come out in order, and the last one always, however fast they come.
func TestLatest(t *testing.T) {
	var mu sync.Mutex
	var got []int
	var state atomic.Int64
	l := newLatest(func() {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, int(state.Load()))
	})
	put := func(n int64) {
		state.Store(n)
		l.changed()
	}
	put(1)
	l.flush()
	mu.Lock()
	if len(got) != 1 || got[0] != 1 {
		t.Errorf("got %v", got)
	}
	mu.Unlock()
	const most = 100000
	for n := int64(2); n <= most; n++ {
		put(n)
	}
	l.close()
	put(0)
	l.close()
	mu.Lock()
	defer mu.Unlock()
	if len(got) > 10*stateBurst || got[len(got)-1] != most {
		t.Errorf("%d states were written, the last is %d", len(got), got[len(got)-1])
	}
	for i := 1; i < len(got); i++ {
		if got[i] < got[i-1] {
			t.Fatalf("out of order: %v", got)
		}
	}
}

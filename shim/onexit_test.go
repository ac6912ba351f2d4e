package shim

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	var b backoff
	for i, step := range []struct{ ran, want time.Duration }{
		{0, 100 * time.Millisecond},
		{time.Second, 200 * time.Millisecond},
		{restartReset - 1, 400 * time.Millisecond},
		{restartReset, 100 * time.Millisecond},
		{0, 200 * time.Millisecond},
	} {
		if got := b.after(step.ran); got != step.want {
			t.Errorf("step %d: got %v, want %v", i, got, step.want)
		}
	}
	for range 20 {
		b.after(0)
	}
	if got := b.after(0); got != time.Minute {
		t.Errorf("it grows to %v, want a minute", got)
	}
}

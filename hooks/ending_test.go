package hooks

import (
	"slices"
	"testing"
	"time"

	"containerd-shim-rich/life"
)

func TestEnvironment(t *testing.T) {
	got := Environment(Prestart, "web", nil)
	if want := []string{"RICH_HOOK=prestart", "RICH_CONTAINER=web"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = Environment(Poststop, "web", &life.Ending{Code: 139, Reason: life.ReasonSignal, Duration: 61*time.Second + 2345*time.Microsecond})
	want := []string{
		"RICH_HOOK=poststop", "RICH_CONTAINER=web",
		"RICH_EXIT_CODE=139", "RICH_EXIT_SIGNAL=SIGSEGV", "RICH_EXIT_REASON=signal", "RICH_DURATION=61.002",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnnotations(t *testing.T) {
	got := endingAnnotations(life.Ending{Code: 7, Reason: life.ReasonExit, Duration: 1500 * time.Millisecond})
	for key, want := range map[string]string{"exit-code": "7", "exit-signal": "", "exit-reason": "exit", "duration": "1.500"} {
		if v, ok := got["containerd-shim-rich."+key]; !ok || v != want {
			t.Errorf("%s is %q, want %q", key, v, want)
		}
	}
}

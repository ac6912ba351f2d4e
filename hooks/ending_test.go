package hooks

import (
	"slices"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	got := Environment(Prestart, "web", nil)
	if want := []string{"RICH_HOOK=prestart", "RICH_CONTAINER=web"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = Environment(Poststop, "web", &Ending{Code: 139, Reason: ReasonSignal, Duration: 61*time.Second + 2345*time.Microsecond})
	want := []string{
		"RICH_HOOK=poststop", "RICH_CONTAINER=web",
		"RICH_EXIT_CODE=139", "RICH_EXIT_SIGNAL=SIGSEGV", "RICH_EXIT_REASON=signal", "RICH_DURATION=61.002",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSignal(t *testing.T) {
	for code, want := range map[uint32]string{
		0: "", 1: "", 128: "", 129: "SIGHUP", 137: "SIGKILL", 143: "SIGTERM", 128 + 37: "37", 192: "64", 193: "", 255: "",
	} {
		if got := (Ending{Code: code}).Signal(); got != want {
			t.Errorf("%d: got %q, want %q", code, got, want)
		}
	}
	if got := (Ending{Code: 133, Reason: ReasonReboot}).Signal(); got != "" {
		t.Errorf("a reboot is %q", got)
	}
}

func TestAnnotations(t *testing.T) {
	got := Ending{Code: 7, Reason: ReasonExit, Duration: 1500 * time.Millisecond}.Annotations()
	for key, want := range map[string]string{"exit-code": "7", "exit-signal": "", "exit-reason": "exit", "duration": "1.500"} {
		if v, ok := got["containerd-shim-rich."+key]; !ok || v != want {
			t.Errorf("%s is %q, want %q", key, v, want)
		}
	}
}

package life

import "testing"

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

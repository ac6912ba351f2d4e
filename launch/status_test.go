package launch

import (
	"syscall"
	"testing"
)

func TestExitStatus(t *testing.T) {
	for name, test := range map[string]struct {
		ws   syscall.WaitStatus // as in wait(2): signal, 0x80 for a core dump, code << 8
		want uint32
	}{
		"success":     {0, 0},
		"code 42":     {42 << 8, 42},
		"code 255":    {255 << 8, 255},
		"KILL":        {9, 137},
		"core dump":   {11 | 0x80, 139},
		"a real-time": {64, 192},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ExitStatus(test.ws); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

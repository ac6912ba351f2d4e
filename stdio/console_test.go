package stdio

import "testing"

func TestSpotter(t *testing.T) {
	for _, c := range []struct {
		parts []string
		want  int
	}{
		{[]string{"x Requesting system reboot\n"}, 1},
		{[]string{"Requesting sys", "tem rebo", "ot"}, 1},
		{[]string{"Requesting system halt\n", "Requesting system ", "poweroff"}, 0},
		{[]string{"RequestingRequesting system reboot", "reboot"}, 1},
	} {
		n := 0
		s := &Spotter{Text: []byte("Requesting system reboot"), Found: func() { n++ }}
		for _, p := range c.parts {
			s.look([]byte(p))
			if len(s.tail) >= len(s.Text) {
				t.Errorf("%q: keeps %q", c.parts, s.tail)
			}
		}
		if n != c.want {
			t.Errorf("%q: found %d times", c.parts, n)
		}
	}
	(&Spotter{}).look([]byte("any"))
}

package initmode

import "testing"

func TestWithin(t *testing.T) {
	for _, tc := range []struct {
		name, dir     string
		within, below bool
	}{
		{"/run", "/run", true, false},
		{"/run/rich", "/run", true, true},
		{"/run/rich/launch", "/run", true, true},
		{"/run", "/run/rich", false, false},
		{"/running", "/run", false, false},
		{"/var/run", "/run", false, false},
		{"/run", "/", true, true},
		{"/run/rich", "/", true, true},
		{"/", "/", true, false},
		{"/", "/run", false, false},
	} {
		if got := Within(tc.name, tc.dir); got != tc.within {
			t.Errorf("%s within %s: %v", tc.name, tc.dir, got)
		}
		if got := Below(tc.name, tc.dir); got != tc.below {
			t.Errorf("%s below %s: %v", tc.name, tc.dir, got)
		}
	}
}

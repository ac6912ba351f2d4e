package child

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// changeMemlock gives this process another limit of locked memory, as
// libcontainer does; lower, which needs no privilege.
func changeMemlock(t *testing.T) unix.Rlimit {
	t.Helper()
	had := memlock()
	other := unix.Rlimit{Cur: had.Cur / 2, Max: had.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &had); err != nil {
			t.Error(err)
		}
	})
	return other
}

func TestInheritedLimits(t *testing.T) {
	before, err := InheritedLimits()
	if err != nil {
		t.Fatal(err)
	}
	had := memlock()
	if want := (launch.Rlimit{Resource: unix.RLIMIT_MEMLOCK, Soft: had.Cur, Hard: had.Max}); before[unix.RLIMIT_MEMLOCK] != want || had.Cur == 0 {
		t.Errorf("got %v, want %v", before[unix.RLIMIT_MEMLOCK], want)
	}
	changeMemlock(t)
	if after, err := InheritedLimits(); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("got %v, %v; want %v", after, err, before)
	}
}

func TestProcessRlimits(t *testing.T) {
	real := raisesMemlock
	defer func() { raisesMemlock = real }()
	raisesMemlock = func() bool { return false }
	if p, err := NewProcess(&specs.Process{}); err != nil || p.Rlimits != nil {
		t.Errorf("where nothing is raised: got %v, %v", p.Rlimits, err)
	}
	raisesMemlock = func() bool { return true }
	had := memlock()
	changeMemlock(t)
	inherited := configs.Rlimit{Type: unix.RLIMIT_MEMLOCK, Soft: had.Cur, Hard: had.Max}
	for _, c := range []struct {
		name string
		set  []specs.POSIXRlimit
		want []configs.Rlimit
	}{
		{"none", nil, []configs.Rlimit{inherited}},
		{"another", []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}, []configs.Rlimit{{Type: unix.RLIMIT_CORE, Soft: 1, Hard: 2}, inherited}},
		{"this", []specs.POSIXRlimit{{Type: "RLIMIT_MEMLOCK", Soft: 1, Hard: 2}}, []configs.Rlimit{{Type: unix.RLIMIT_MEMLOCK, Soft: 1, Hard: 2}}},
	} {
		p, err := NewProcess(&specs.Process{Rlimits: c.set})
		if err != nil || !reflect.DeepEqual(p.Rlimits, c.want) {
			t.Errorf("%s: got %v, %v; want %v", c.name, p.Rlimits, err, c.want)
		}
	}
}

func TestKeepMemlock(t *testing.T) {
	now := func() (l unix.Rlimit) {
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	had, real := memlock(), memlockRaised
	defer func() { memlockRaised = real }()
	c := New()
	first, second := c.keepMemlock(), c.keepMemlock()
	memlockRaised = changeMemlock(t)
	first()
	if got := now(); got != memlockRaised {
		t.Errorf("changed to %v while another start may need it", got)
	}
	second()
	if got := now(); got != had {
		t.Errorf("afterwards it is %v, want %v", got, had)
	}
	// What somebody else has set stays.
	memlockRaised = real
	other := changeMemlock(t)
	c.keepMemlock()()
	if got := now(); got != other {
		t.Errorf("what was set otherwise became %v", got)
	}
}

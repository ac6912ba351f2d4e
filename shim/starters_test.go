package shim

import (
	"errors"
	"sync"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
)

func TestStarters(t *testing.T) {
	own, loaded := &libcontainer.Container{}, 0
	s := newStarters(own, func() (*libcontainer.Container, error) {
		loaded++ // no two at once below
		return &libcontainer.Container{}, nil
	})
	for range 3 {
		if err := s.with(func(h *libcontainer.Container) error {
			if h != own {
				t.Error("one by one: not the container's own handle")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if loaded != 0 {
		t.Errorf("one by one: %d handles loaded", loaded)
	}
	// Each holds its handle while the next one asks for another.
	used := map[*libcontainer.Container]bool{}
	var nest func(depth int) error
	nest = func(depth int) error {
		return s.with(func(h *libcontainer.Container) error {
			if used[h] {
				t.Error("a handle was used twice at once")
			}
			used[h] = true
			if depth > 1 {
				return nest(depth - 1)
			}
			return nil
		})
	}
	if err := nest(maxStarters); err != nil {
		t.Error(err)
	}
	if len(used) != maxStarters || !used[own] || loaded != maxStarters-1 {
		t.Errorf("at once: %d handles, %d loaded, want %d with the own", len(used), loaded, maxStarters)
	}
	if len(s.idle) != 1 || s.idle[0] != own {
		t.Errorf("afterwards: %d handles are kept", len(s.idle))
	}
	failed := errors.New("no")
	if err := s.with(func(*libcontainer.Container) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestStartersBound(t *testing.T) {
	s := newStarters(&libcontainer.Container{}, func() (*libcontainer.Container, error) { return &libcontainer.Container{}, nil })
	var mu sync.Mutex
	var all sync.WaitGroup
	now, most := 0, 0
	for range 200 {
		all.Go(func() {
			_ = s.with(func(*libcontainer.Container) error {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				mu.Lock()
				now--
				mu.Unlock()
				return nil
			})
		})
	}
	all.Wait()
	if most > maxStarters || now != 0 || len(s.idle) != 1 {
		t.Errorf("%d at once, want at most %d; %d left; %d idle", most, maxStarters, now, len(s.idle))
	}
	s.own = nil
	s.idle = nil
	s.load = func() (*libcontainer.Container, error) { return nil, libcontainer.ErrNotExist }
	if err := s.with(func(*libcontainer.Container) error { t.Error("started without a handle"); return nil }); !errors.Is(err, libcontainer.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

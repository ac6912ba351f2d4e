package shim

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
)

func TestStarters(t *testing.T) {
	loaded := 0
	s := newStarters(func() (*libcontainer.Container, error) {
		loaded++ // no two at once below
		return &libcontainer.Container{}, nil
	})
	ctx := context.Background()
	for range 3 {
		if err := s.with(ctx, func(*libcontainer.Container) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	if loaded != 1 {
		t.Errorf("one by one: %d handles loaded", loaded)
	}
	// Each holds its handle while the next one asks for another.
	used := map[*libcontainer.Container]bool{}
	var nest func(depth int) error
	nest = func(depth int) error {
		return s.with(ctx, func(h *libcontainer.Container) error {
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
	if len(used) != maxStarters || loaded != maxStarters {
		t.Errorf("at once: %d handles, %d loaded, want %d", len(used), loaded, maxStarters)
	}
	if len(s.idle) != 1 {
		t.Errorf("afterwards: %d handles are kept", len(s.idle))
	}
	failed := errors.New("no")
	if err := s.with(ctx, func(*libcontainer.Container) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestStartersBound(t *testing.T) {
	s := newStarters(func() (*libcontainer.Container, error) { return &libcontainer.Container{}, nil })
	var mu sync.Mutex
	var all sync.WaitGroup
	now, most := 0, 0
	for range 200 {
		all.Go(func() {
			_ = s.with(context.Background(), func(*libcontainer.Container) error {
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
	<-s.idle
	s.load = func() (*libcontainer.Container, error) { return nil, libcontainer.ErrNotExist }
	if err := s.with(context.Background(), func(*libcontainer.Container) error { t.Error("started without a handle"); return nil }); !errors.Is(err, libcontainer.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	// Who waits for a turn waits no longer than it wants to.
	for range maxStarters {
		s.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.with(ctx, func(*libcontainer.Container) error { t.Error("it was not its turn"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

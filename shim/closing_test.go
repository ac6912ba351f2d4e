package shim

import (
	"errors"
	"slices"
	"testing"
)

// closes is a list whose items note that they have been closed.
func closes(fails ...string) (*closing, *[]string, error) {
	var l closing
	var done []string
	err := errors.New("stuck")
	for _, c := range []struct {
		name string
		at   moment
	}{{"directory", removed}, {"fence", created}, {"container", removed}, {"streams", undone}, {"sockets", ended}, {"process", undone}, {"watch", ended}} {
		l.add(c.at, func() error {
			done = append(done, c.name)
			if slices.Contains(fails, c.name) {
				return err
			}
			return nil
		})
	}
	return &l, &done, err
}

// What a Create has made goes with it when it fails, the last first, whatever
// cannot be closed.
func TestUndoneCreate(t *testing.T) {
	l, done, stuck := closes("process", "container")
	first := errors.New("no such program")
	if err := l.undo(first); !errors.Is(err, first) || !errors.Is(err, stuck) {
		t.Errorf("error %v", err)
	}
	if want := []string{"watch", "process", "sockets", "streams", "container", "fence", "directory"}; !slices.Equal(*done, want) {
		t.Errorf("closed %q, want %q", *done, want)
	}
	if err := l.undo(nil); err != nil || len(*done) != 7 {
		t.Errorf("a second time: %v, %q", err, *done)
	}
}

// A container that was created closes each thing at its moment, and once.
func TestClosingMoments(t *testing.T) {
	l, done, _ := closes()
	if err := l.run(created); err != nil || !slices.Equal(*done, []string{"fence"}) {
		t.Errorf("at the end of Create: %v, %q", err, *done)
	}
	l.keep()
	for range 2 {
		if err := l.run(ended); err != nil || !slices.Equal(*done, []string{"fence", "watch", "sockets"}) {
			t.Errorf("at the end: %v, %q", err, *done)
		}
	}
	if err := l.run(removed); err != nil || !slices.Equal(*done, []string{"fence", "watch", "sockets", "container", "directory"}) {
		t.Errorf("at Delete: %v, %q", err, *done)
	}
	if len(*l) > 0 {
		t.Errorf("%d are left", len(*l))
	}
}

// A Delete that fails can be repeated, and goes on where it was.
func TestClosingAgain(t *testing.T) {
	l, done, stuck := closes("container")
	for range 2 {
		if err := l.run(removed); !errors.Is(err, stuck) {
			t.Errorf("error %v", err)
		}
	}
	if want := []string{"container", "container"}; !slices.Equal(*done, want) {
		t.Errorf("closed %q, want %q", *done, want)
	}
}

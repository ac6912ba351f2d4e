package launch

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if f, err := Dial(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("no socket: got %v, %v, want ErrNotExist", f, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	near := NewConn(f, MaxFromShim)
	defer near.Close()
	peer, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	far := NewConn(peer, MaxFromContainer)
	defer far.Close()
	want := Hello{Version: Version, Role: RoleEvent}
	if err := near.Send(want); err != nil {
		t.Fatal(err)
	}
	if got, _, err := far.Receive(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

package launcher

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/log"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/launch"
)

func testDoor(t *testing.T, serve func(*launch.Conn) error) (*door, func() *net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	d, err := openDoor(dir, os.Getuid(), os.Getgid(), 2, true, log.L, serve)
	if err != nil {
		t.Fatal(err)
	}
	return d, func() *net.UnixConn {
		t.Helper()
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, bundle.LauncherSocket)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func bounded(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		do()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not return", what)
	}
}

// Whoever serves a connection for ever, waits in the queue or has taken every turn holds up nobody.
func TestDoorClosesInTime(t *testing.T) {
	begun, stuck := make(chan struct{}, 10), make(chan struct{})
	defer close(stuck)
	d, dial := testDoor(t, func(*launch.Conn) error {
		begun <- struct{}{}
		<-stuck
		return nil
	})
	for range 4 {
		dial()
	}
	<-begun
	<-begun
	bounded(t, "close", d.close)
	bounded(t, "a second close", d.close)
	select {
	case <-begun:
		t.Error("somebody was let in after the end")
	default:
	}
}

// What has been sent before the end is read.
func TestDoorTakesLastReport(t *testing.T) {
	got := make(chan launch.Message, 1)
	d, dial := testDoor(t, func(conn *launch.Conn) error {
		m, _, err := conn.Receive()
		got <- m
		return err
	})
	c := dial()
	if err := launch.NewConn(c, launch.MaxFromShim).Send(launch.Exited{Status: 7}); err != nil {
		t.Fatal(err)
	}
	// It is accepted: only what is in the queue is not read.
	bounded(t, "the report", func() {
		for len(got) == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	bounded(t, "close", d.close)
	if m := <-got; m != (launch.Exited{Status: 7}) {
		t.Errorf("got %+v", m)
	}
}

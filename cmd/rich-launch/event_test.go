package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// eventCommand is `launch event reboot` with a socket in dir. It is killed,
// and so fails, if it blocks.
func eventCommand(t *testing.T, dir string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, launcher, "event", "reboot")
	cmd.Dir = dir
	return cmd
}

// eventSocket is where the launcher finds the shim if it runs in dir.
func eventSocket(t *testing.T) (dir string, l *net.UnixListener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "event") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "shim.sock")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return dir, l
}

// receiveEvent takes the next connection, on which an event must be told.
func receiveEvent(t *testing.T, l *net.UnixListener, name string) {
	t.Helper()
	l.SetDeadline(time.Now().Add(patience))
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	conn := launch.NewConn(c, launch.MaxFromContainer)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	for _, want := range []launch.Message{launch.Hello{Version: launch.EventVersion, Role: launch.RoleEvent}, launch.Event{Name: name}} {
		if m, _, err := conn.Receive(); err != nil || m != want {
			t.Errorf("got %+v, %v, want %+v", m, err, want)
		}
	}
}

func TestEvent(t *testing.T) {
	dir, l := eventSocket(t)
	// It does not wait for the shim, which can read what it said later.
	if out, err := eventCommand(t, dir).CombinedOutput(); err != nil || len(out) != 0 {
		t.Fatalf("%v, %q", err, out)
	}
	receiveEvent(t, l, "reboot")
}

func TestEventWithoutShim(t *testing.T) {
	if out, err := eventCommand(t, t.TempDir()).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v, %q", err, out)
	}
}

// TestEventHungShim has a socket that takes no more connections.
func TestEventHungShim(t *testing.T) {
	dir, err := os.MkdirTemp("", "event")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	path := filepath.Join(dir, "shim.sock")
	if err := unix.Bind(listener, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 0); err != nil {
		t.Fatal(err)
	}
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := eventCommand(t, dir).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v, %q", err, out)
	}
}

package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"containerd-shim-rich/launch"
)

func TestState(t *testing.T) {
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "shim.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	run := func(args ...string) (stderr string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, launcher, append([]string{"state"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
		return string(out)
	}
	told := func(want string) {
		t.Helper()
		l.SetDeadline(time.Now().Add(patience))
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		conn := launch.NewConn(c, launch.MaxFromContainer)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		for _, want := range []launch.Message{launch.Hello{Version: launch.Version, Role: launch.RoleEvent}, launch.Event{Name: want}} {
			if m, _, err := conn.Receive(); err != nil || m != want {
				t.Errorf("got %+v, %v, want %+v", m, err, want)
			}
		}
	}
	// The exit status tells of the state as well, and is no failure.
	run("/bin/sh", "-c", "echo degraded; exit 1")
	told("degraded")
	// What prints without an end is not waited for.
	run("/bin/sh", "-c", "exec yes xxxxxxx")
	told(strings.TrimSpace(strings.Repeat("xxxxxxx\n", maxState/8)))
	for _, quiet := range [][]string{{"/bin/true"}, {"/no/such/program"}} {
		stderr := run(quiet...)
		if quiet[0] == "/no/such/program" && !strings.Contains(stderr, "no such file") {
			t.Errorf("it says %q", stderr)
		}
		l.SetDeadline(time.Now())
		if c, err := l.AcceptUnix(); err == nil {
			c.Close()
			t.Errorf("%q has told something", quiet)
		}
	}
}

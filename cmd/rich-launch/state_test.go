package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestState(t *testing.T) {
	dir, l := eventSocket(t)
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
	// The exit status tells of the state as well, and is no failure.
	run("/bin/sh", "-c", "echo degraded; exit 1")
	receiveEvent(t, l, "degraded")
	// What prints without an end is not waited for.
	run("/bin/sh", "-c", "exec yes xxxxxxx")
	receiveEvent(t, l, strings.TrimSpace(strings.Repeat("xxxxxxx\n", maxState/8)))
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

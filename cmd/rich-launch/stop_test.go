package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"containerd-shim-rich/launch"
)

// stopCommand is `launch stop`. It is killed, and so fails, if it blocks.
func stopCommand(t *testing.T, name ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, launcher, append([]string{"stop"}, name...)...)
}

func TestStop(t *testing.T) {
	s := serve(t)
	r := sh("trap 'sleep 0.3; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
	r.StopSignal = 10
	s.start(r)
	ready := make([]byte, 6)
	if _, err := s.stdout.Read(ready); err != nil {
		t.Fatal(err)
	}
	stop := stopCommand(t)
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	// The launcher becomes a zombie here until it is waited for, which is
	// an end as well.
	if m := s.receive(); m != (launch.Exited{Status: 5, Requested: true}) {
		t.Errorf("got %+v", m)
	}
	if err := stop.Wait(); err != nil {
		t.Error(err)
	}
	s.ended(5)
}

func TestStopOfNothing(t *testing.T) {
	if out, err := stopCommand(t).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("%v, %q", err, out)
	}
}

// Only the launcher itself is meant, not whatever is called like it.
func TestStopSparesOthers(t *testing.T) {
	other := exec.Command("sh")
	other.Args = []string{launcher, "app"} // a script that waits for its stdin
	other.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(other.Dir, "app"), []byte("read x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if isApp(other.Process.Pid) {
		t.Error("a shell is taken for the launcher")
	}
	stdin.Close()
	_ = other.Wait()
}

package child

import (
	"os"
	"os/exec"
	"testing"
)

func TestExiting(t *testing.T) {
	exiting := func(pid int) bool {
		t.Helper()
		process, err := OpenProc(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { process.Close() })
		return process.Exiting()
	}
	if exiting(os.Getpid()) {
		t.Error("this process is not on its way out")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	process, err := OpenProc(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !process.Exiting() || !process.WaitedFor() {
		t.Error("a process that is gone counts as alive")
	}
}

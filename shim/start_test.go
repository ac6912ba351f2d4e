package shim

import (
	"os"
	"os/exec"
	"testing"
)

func TestExiting(t *testing.T) {
	if exiting(os.Getpid()) {
		t.Error("this process is not on its way out")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !exiting(cmd.Process.Pid) {
		t.Error("a process that is gone counts as alive")
	}
}

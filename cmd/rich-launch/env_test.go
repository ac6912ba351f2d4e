package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"containerd-shim-rich/launch"
)

func TestOverlay(t *testing.T) {
	own := []string{"HOME=/root", "PATH=/bin", "LC_ALL=C", "TERM=dumb"}
	container := []string{"PATH=/opt/bin", "HOME=/data", "SHELL=/bin/zsh", "A=a\nb\xff", "E="}
	want := []string{"HOME=/root", "PATH=/opt/bin", "LC_ALL=C", "TERM=dumb", "SHELL=/bin/zsh", "A=a\nb\xff", "E="}
	if got := overlay(own, container); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := overlay(own, []string{""}); !slices.Equal(got, own) {
		t.Errorf("with an empty file: %q", got)
	}
	if own[1] != "PATH=/bin" {
		t.Error("its input was changed")
	}
}

// TestEnv starts the launcher from a directory that has the file beside it.
func TestEnv(t *testing.T) {
	dir, err := os.MkdirTemp("", "env")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "launch")
	if err := os.Symlink(launcher, program); err != nil {
		t.Fatal(err)
	}
	start := func(prefix []string, args ...string) (code int, stdout, stderr string) {
		args = append(append(prefix, program, "env"), args...)
		cmd := exec.Command(args[0], args[1:]...)
		var out, log bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = []string{"PATH=/nowhere", "HOME=/root"}, &out, &log
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), log.String()
	}
	file := filepath.Join(dir, launch.EnvironFile)
	if code, _, stderr := start(nil, "--", "env"); code != exitLauncher || !strings.Contains(stderr, file+": no such file") {
		t.Errorf("without the file: %d, %q", code, stderr)
	}
	if err := os.WriteFile(file, []byte("PATH="+helpers+":/usr/bin:/bin\x00a.b=it's $5\n\xff\x00HOME=/data\x00"), 0o400); err != nil {
		t.Fatal(err)
	}
	want := "PATH=" + helpers + ":/usr/bin:/bin\x00HOME=/root\x00a.b=it's $5\n\xff\x00"
	if code, stdout, stderr := start(nil, "--", "env", "-0"); code != 0 || stdout != want || stderr != "" {
		t.Errorf("got %d, %q, %q, want %q", code, stdout, stderr, want)
	}
	// The program is looked for in the container's PATH.
	if code, stdout, _ := start(nil, "printargs", "--", ""); code != 0 || stdout != "printargs\x00--\x00\x00" {
		t.Errorf("got %d, %q", code, stdout)
	}
	if code, _, stderr := start(nil, "--", "foo"); code != exitNotFound || stderr != `rich: exec "foo": executable file not found in $PATH`+"\n" {
		t.Errorf("got %d, %q", code, stderr)
	}
	other := []string{"/usr/bin/setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"}
	if code, stdout, stderr := start(other, "--", "env"); code != exitLauncher || stdout != "" || !strings.Contains(stderr, "permission denied") {
		t.Errorf("as another user: %d, %q, %q", code, stdout, stderr)
	}
}

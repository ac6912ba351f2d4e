package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// runLauncher runs `launch run` by way of a shell script that has it as "$@".
func runLauncher(t *testing.T, script string, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", launcher, "run"}, args...)...)
	var out, log bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &log
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

func TestRun(t *testing.T) {
	path := []string{"PATH=" + helpers + ":/usr/bin:/bin"}
	for name, test := range map[string]struct {
		script string
		env    []string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"arguments":      {`exec "$@"`, path, []string{"--", "printargs", "--", "", "a b", "\xff"}, 0, "printargs\x00--\x00\x00a b\x00\xff\x00", ""},
		"without dashes": {`exec "$@"`, path, []string{"printargs", "x"}, 0, "printargs\x00x\x00", ""},
		"exit code":      {`exec "$@"`, path, []string{"--", "sh", "-c", "exit 42"}, 42, "", ""},
		"NOFILE":         {`ulimit -Sn 500; exec "$@"`, path, []string{"--", "sh", "-c", "ulimit -Sn"}, 0, "500\n", ""},
		"descriptors":    {`exec 5</dev/null; exec "$@"`, path, []string{"--", "sh", "-c", "cd /proc/self/fd && echo ?"}, 0, "0 1 2 3 5\n", ""},
		"environment": {`exec env -i PATH=/bin "A=a
b" E= Z=1 "$@"`, path, []string{"--", "env"}, 0, "PATH=/bin\nA=a\nb\nE=\nZ=1\n", ""},
		"not found":      {`exec "$@"`, path, []string{"--", "foo"}, 127, "", `rich: exec "foo": executable file not found in $PATH` + "\n"},
		"not executable": {`exec "$@"`, path, []string{"--", "/etc/passwd"}, 126, "", `rich: exec "/etc/passwd": permission denied` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runLauncher(t, test.script, test.env, test.args...)
			if code != test.code || stdout != test.stdout || stderr != test.stderr {
				t.Errorf("got %d, %q, %q, want %d, %q, %q", code, stdout, stderr, test.code, test.stdout, test.stderr)
			}
		})
	}
}

// TestRunPasses looks at what an exec keeps.
func TestRunPasses(t *testing.T) {
	dir := t.TempDir()
	script := `cd ` + dir + `; umask 027; ulimit -Hc 0; echo $$; exec env --ignore-signal=HUP,INT --block-signal=USR1,40 \
		setpriv --reuid=0 --groups=7,8 --bounding-set=-sys_admin --no-new-privs "$@"`
	code, stdout, stderr := runLauncher(t, script, []string{"PATH=/usr/bin:/bin"}, "--", "cat", "/proc/self/status", "/proc/self/stat")
	if code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	// TERM and its like would come out unblocked.
	pid, rest, _ := strings.Cut(stdout, "\n")
	for _, want := range []string{
		"Pid:\t" + pid + "\n", "Groups:\t7 8 \n", "Umask:\t0027\n", "NoNewPrivs:\t1\n", "SigBlk:\t0000008000000200\n",
	} {
		if !strings.Contains(rest, want) {
			t.Errorf("no %q in %s", want, rest)
		}
	}
	// HUP and INT; the tests' own process may have real-time signals ignored.
	_, line, _ := strings.Cut(rest, "SigIgn:\t")
	line, _, _ = strings.Cut(line, "\n")
	if ignored, err := strconv.ParseUint(line, 16, 64); err != nil || ignored&0x7fffffff != 3 {
		t.Errorf("ignored signals %q", line)
	}
	if b, err := os.ReadDir(filepath.Clean(dir)); err != nil || len(b) != 0 {
		t.Errorf("the working directory holds %v, %v", b, err)
	}
}

package integration

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The tests here run containers without any init: what holds for them must hold for the command under every init.

func TestPlainReport(t *testing.T) {
	args := []string{probePath, "", "a b", "$HOME", "%n", "\\x41", "a\nb", "ü漢"}
	got := runTask(t, imageScratch, runLimit, withInit("none"), withProbe(args[1:]...),
		withEnv("A=hello world", "C=line1\nline2\n", "E="),
		withProcess(func(p *specs.Process) {
			p.Cwd = "/tmp/not/there"
			umask := uint32(0o27)
			p.User = specs.User{UID: 1234, GID: 5678, AdditionalGids: []uint32{2000, 3000}, Umask: &umask}
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 512, Hard: 1024}}
		}))
	if got.Code != 0 {
		t.Fatalf("got %+v", got)
	}
	report := parseReport(t, got.Stdout)
	if !slices.Equal(report.Args(), args) {
		t.Errorf("argv %q, want %q", report.Args(), args)
	}
	for name, want := range map[string]string{"A": "hello world", "C": "line1\nline2\n", "E": ""} {
		if value, found := report.Env(name); !found || value != want {
			t.Errorf("%s is %q (set: %v), want %q", name, value, found, want)
		}
	}
	if report.UID != 1234 || report.GID != 5678 || !slices.Equal(report.Groups, []uint32{2000, 3000}) {
		t.Errorf("uid %d gid %d groups %v", report.UID, report.GID, report.Groups)
	}
	if string(report.Cwd) != "/tmp/not/there" || report.Umask != 0o27 {
		t.Errorf("cwd %s umask %#o", report.Cwd, report.Umask)
	}
	if limit := report.Rlimits["RLIMIT_NOFILE"]; limit.Soft != 512 || limit.Hard != 1024 {
		t.Errorf("RLIMIT_NOFILE %+v", limit)
	}
}

func TestPlainStdin(t *testing.T) {
	run := startTask(t, imageScratch, withInit("none"), withProbe("cat"), withStdin())
	input := strings.Repeat("0123456789abcde\n", 1<<16)
	if _, err := run.Stdin.Write([]byte(input)); err != nil {
		t.Fatal(err)
	}
	run.CloseStdin()
	if code := run.Wait(runLimit); code != 0 {
		t.Errorf("exit status %d", code)
	}
	run.Delete()
	if got := run.Stdout.String(); got != input {
		t.Errorf("%d bytes came back, want %d", len(got), len(input))
	}
}

func TestPlainOutputIsComplete(t *testing.T) {
	const size = 3 << 20
	got := runTask(t, imageScratch, runLimit, withInit("none"), withProbe("blob", "3145728"))
	if len(got.Stdout) != size || len(got.Stderr) != size {
		t.Errorf("%d and %d bytes, want %d each", len(got.Stdout), len(got.Stderr), size)
	}
}

func TestPlainTerminal(t *testing.T) {
	got := runTask(t, imageBusybox, runLimit, withInit("none"), withTerminal(),
		withArgs("sh", "-c", "test -t 0 && test -t 2 && tty"))
	if got.Code != 0 || !strings.HasPrefix(got.Stdout, "/dev/") {
		t.Errorf("got %+v", got)
	}
}

func TestPlainExec(t *testing.T) {
	run := startTask(t, imageBusybox, withInit("none"), withArgs("sleep", "1000"), withEnv("MINE=x y"))
	got := run.Exec("sh", "-c", `echo "$MINE"; echo err >&2; exit 9`)
	if want := (result{Stdout: "x y\n", Stderr: "err\n", Code: 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	run.Kill(syscall.SIGKILL)
	if code := run.Wait(runLimit); code != 137 {
		t.Errorf("exit status %d, want 137", code)
	}
}

func TestPlainSignals(t *testing.T) {
	dir := t.TempDir()
	run := startTask(t, imageScratch, withInit("none"), withProbe("trap", "/out/signals", "0", "5"), withBind(dir, "/out", "rbind", "rw"))
	run.WaitOutput("ready", runLimit)
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, 37, syscall.SIGTERM} {
		run.Kill(signal)
	}
	if code := run.Wait(runLimit); code != 5 {
		t.Errorf("exit status %d, want 5", code)
	}
	// The order of signals that are pending together is the kernel's.
	got := readLines(t, dir+"/signals")
	for _, want := range []string{"HUP", "USR1", "TERM"} {
		if !slices.Contains(got, want) {
			t.Errorf("got signals %v, want %s in it", got, want)
		}
	}
}

// Any client may send the stock runtime's options.
func TestPlainRuntimeOptions(t *testing.T) {
	got := runTask(t, imageScratch, runLimit, withInit("none"), withArgs("/hello", "exit", "4"),
		withRuntimeOptions(&options.Options{}))
	if got.Code != 4 {
		t.Errorf("got %+v", got)
	}
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The files TestMain makes, in a directory that every user may search.
var (
	launcher string // the launcher, built with a socketPath relative to its cwd
	helpers  string // a directory with the test binary under the helpers' names
)

func TestMain(m *testing.M) {
	if exe, err := os.Executable(); err == nil {
		if helper := helperOf(filepath.Base(exe)); helper != nil {
			os.Exit(helper())
		}
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests start processes as other users: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "rich-launch")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		launcher = filepath.Join(dir, "launch")
		err = build(launcher)
	}
	if err == nil {
		helpers = filepath.Join(dir, "helpers")
		err = installHelpers(helpers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the launcher as it is shipped, but for the path of the socket:
// each test has its own, in the directory it starts the launcher in.
func build(path string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X main.socketPath=shim.sock -X main.version=1.2.3", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// installHelpers copies the test binary: what go test runs is in a directory
// closed to other users.
func installHelpers(dir string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	const first = "printargs"
	if err := os.WriteFile(filepath.Join(dir, first), b, 0o755); err != nil {
		return err
	}
	return os.Link(filepath.Join(dir, first), filepath.Join(dir, "catch"))
}

func helperOf(name string) func() int {
	switch name {
	case "printargs":
		return printArgs
	case "catch":
		return catch
	}
	return nil
}

// printArgs prints its arguments, each ended by a NUL byte.
func printArgs() int {
	for _, arg := range os.Args {
		os.Stdout.WriteString(arg + "\x00")
	}
	return 0
}

// catch prints the number of every signal it gets, one to a line, and ends with
// code 42 when stdin does.
func catch() int {
	caught := make(chan os.Signal, lastSignal)
	signal.Notify(caught)
	end := make(chan struct{})
	go func() {
		_, _ = io.ReadAll(os.Stdin)
		close(end)
	}()
	fmt.Println("ready")
	for {
		select {
		case s := <-caught:
			fmt.Println(int(s.(syscall.Signal)))
		case <-end:
			return 42
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"stop", "x", "y"},
		{"command"},
		{"component"},
		{"component", "x", "y"},
		{"component", "x", waitForStop, "y"},
		{"what"},
		{"event"},
		{"event", "a", "b"},
		{"run"},
		{"run", "--"},
		{"state"},
		{"env"},
		{"env", "--"},
		{"version", "x"},
		{"--help"},
		{stageTwo},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := exec.Command(launcher, args...)
			cmd.Stderr = &stderr
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != exitUsage || stderr.String() != usage {
				t.Errorf("exit code %d, stderr %q", code, stderr.String())
			}
		})
	}
}

func TestVersion(t *testing.T) {
	out, err := exec.Command(launcher, "version").Output()
	if err != nil || string(out) != "1.2.3\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

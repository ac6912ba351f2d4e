package stdio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func makeFifos(t *testing.T, names ...string) []string {
	t.Helper()
	dir := t.TempDir()
	var out []string
	for _, n := range names {
		path := filepath.Join(dir, n)
		if err := unix.Mkfifo(path, 0o700); err != nil {
			t.Fatal(err)
		}
		out = append(out, path)
	}
	return out
}

// readAll reads a fifo to its end, as a client does: opening it waits for
// the other end.
func readAll(t *testing.T, path string) <-chan []byte {
	t.Helper()
	out := make(chan []byte, 1)
	go func() {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		out <- data
	}()
	return out
}

func TestStdioFifos(t *testing.T) {
	paths := makeFifos(t, "in", "out", "err")
	stdout, stderr := readAll(t, paths[1]), readAll(t, paths[2])
	o, err := Open(context.Background(), Names{Stdin: paths[0], Stdout: paths[1], Stderr: paths[2]}, Owner{}, false)
	if err != nil {
		t.Fatal(err)
	}
	// As the client does: write, close, and say so by CloseIO.
	client, err := os.OpenFile(paths[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteString("input"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	o.CloseStdin()
	in, err := io.ReadAll(o.files[0])
	if err != nil || string(in) != "input" {
		t.Errorf("stdin: %q, %v", in, err)
	}
	for i, text := range []string{"", "output", "error"} {
		if text != "" {
			if _, err := o.files[i].WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
	}
	o.Finish(DrainStuck)
	if got := <-stdout; string(got) != "output" {
		t.Errorf("stdout: %q", got)
	}
	if got := <-stderr; string(got) != "error" {
		t.Errorf("stderr: %q", got)
	}
}

// Without CloseIO, stdin stays open when a client goes: another may come.
func TestStdioKeepsStdin(t *testing.T) {
	paths := makeFifos(t, "in")
	o, err := Open(context.Background(), Names{Stdin: paths[0]}, Owner{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, text := range []string{"first", "second"} {
		client, err := os.OpenFile(paths[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.WriteString(text); err != nil {
			t.Fatal(err)
		}
		client.Close()
		buf := make([]byte, 16)
		n, err := o.files[0].Read(buf)
		if err != nil || string(buf[:n]) != text {
			t.Errorf("got %q, %v; want %q", buf[:n], err, text)
		}
	}
}

func TestStdioWithoutReader(t *testing.T) {
	paths := makeFifos(t, "out")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Open(ctx, Names{Stdout: paths[0]}, Owner{}, false)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStdioFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		o, err := Open(context.Background(), Names{Stdout: "file://" + path, Stderr: "file://" + path}, Owner{}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range o.files[1:] {
			if _, err := f.WriteString("line\n"); err != nil {
				t.Fatal(err)
			}
		}
		o.Finish(DrainStuck)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "line\nline\nline\nline\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestStdioBadScheme(t *testing.T) {
	if _, err := Open(context.Background(), Names{Stdout: "http://x/y"}, Owner{}, false); err == nil {
		t.Error("accepted")
	}
}

// A logging program gets both streams, is told whose they are, and may end
// after it has read everything.
func TestStdioBinary(t *testing.T) {
	dir := t.TempDir()
	program, result := filepath.Join(dir, "logger"), filepath.Join(dir, "result")
	script := "#!/bin/sh\n" +
		"exec 5>&-\n" +
		"{ echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\"; cat <&3; cat <&4; } > " + result + ".tmp\n" +
		"mv " + result + ".tmp " + result + "\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	o, err := Open(context.Background(), Names{Stdout: "binary://" + program + "?key=value&flag", Stderr: "binary://" + program}, Owner{ID: "id", Namespace: "ns", Loggers: NewLoggers(os.Environ())}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range o.files[1:] {
		if _, err := f.WriteString(f.Name() + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	o.Finish(DrainStuck)
	want := "id ns flag key value\npipe\npipe\n"
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, err := os.ReadFile(result)
		if err == nil {
			if string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program did not finish")
		}
	}
}

func TestBoundedLog(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &boundedLog{file: f, limit: 100}
	var all []byte
	for i := range 200 {
		line := []byte{byte('a' + i%26), '\n'}
		all = append(all, line...)
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > 100 || len(got) < 50 || !bytes.HasSuffix(all, got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// TestStdioPiped: what an exec writes arrives, and what it leaves behind does not keep its output open.
func TestStdioPiped(t *testing.T) {
	paths := makeFifos(t, "out", "err")
	stdout, stderr := readAll(t, paths[0]), readAll(t, paths[1])
	o, err := Open(context.Background(), Names{Stdout: paths[0], Stderr: paths[1]}, Owner{}, true)
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	for i, text := range [][]byte{1: large, 2: []byte("error")} {
		if text == nil {
			continue
		}
		if _, err := o.files[i].Write(text); err != nil {
			t.Fatal(err)
		}
	}
	left, err := unix.Dup(int(o.files[1].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	o.Leave(DrainStuck)
	if got := <-stderr; string(got) != "error" {
		t.Errorf("stderr: %q", got)
	}
	if _, err := unix.Write(left, []byte("late")); err != nil {
		t.Errorf("what is left behind cannot write: %v", err)
	}
	for pending := 1; pending > 0; {
		if pending, err = unix.IoctlGetInt(left, unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	}
	o.Await(time.Second) // what has been read is written on
	o.Close()
	if got := <-stdout; string(got) != string(large)+"late" {
		t.Errorf("stdout: %d bytes, want %d", len(got), len(large)+4)
	}
}

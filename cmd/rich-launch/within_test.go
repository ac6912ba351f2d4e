package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWithin(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	slow := "mkfifo " + fifo + "; cat " + fifo + "; echo done >" + dir + "/slow"
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"ends", []string{"within", "60", "sh", "-c", "exit 3"}, 3, ""},
		{"takes too long", []string{"within", "1", "sh", "-c", slow}, 0, "goes on after 1 s"},
		{"cannot be started", []string{"within", "1", filepath.Join(dir, "gone")}, exitCannot, "gone"},
		{"no number", []string{"within", "x", "true"}, exitUsage, "usage"},
		{"no program", []string{"within", "1"}, exitUsage, "usage"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer said.Close()
			defer func(f *os.File) { os.Stderr = f }(os.Stderr)
			os.Stderr = said
			if code := dispatch(tc.args); code != tc.code {
				t.Errorf("got %d, want %d", code, tc.code)
			}
			if text, err := os.ReadFile(said.Name()); err != nil || !strings.Contains(string(text), tc.says) {
				t.Errorf("it says %q, %v", text, err)
			}
		})
	}
	// The slow one has not been harmed.
	if err := os.WriteFile(fifo, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir + "/slow"); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it has not gone on")
		}
	}
}

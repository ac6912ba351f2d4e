package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"containerd-shim-rich/hostfs"
)

// lineRecorder keeps the lines it gets, or refuses them.
type lineRecorder struct {
	mu     sync.Mutex
	lines  []string
	size   int
	refuse bool
	closed bool
}

func (r *lineRecorder) WriteLine(stream string, line []byte, partial bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse {
		return false
	}
	r.size += len(line) + 1
	r.lines = append(r.lines, fmt.Sprintf("%s %v %s", stream, partial, line))
	return true
}

func (r *lineRecorder) Close() error {
	r.closed = true
	return nil
}

func newTestOutput(t *testing.T, to Writer) *Output {
	t.Helper()
	o, err := NewOutput(to, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestComponentOutputLines(t *testing.T) {
	to := &lineRecorder{}
	o := newTestOutput(t, to)
	long := strings.Repeat("x", maxLine)
	for _, part := range []string{"one\ntw", "o\n", "\n", long, "y\n", long + "\nend"} {
		if _, err := o.Ends[1].WriteString(part); err != nil {
			t.Fatal(err)
		}
		o.LastWords() // reads what is there
	}
	o.Close()
	want := []string{"stdout false one", "stdout false two", "stdout false ", "stdout true " + long, "stdout false y", "stdout false " + long}
	if strings.Join(to.lines, "\n") != strings.Join(want, "\n") || !to.closed {
		t.Errorf("got %.100q", to.lines)
	}
}

// The last words are there as soon as the end is, and each is told once.
func TestComponentOutputLastWords(t *testing.T) {
	o := newTestOutput(t, &lineRecorder{})
	defer o.Close()
	var want []string
	for i := range tailLines + 5 {
		line := fmt.Sprintf("line %d %s", i, strings.Repeat("z", i*30))
		if _, err := o.Ends[2].WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		want = append(want, line[:min(len(line), tailLine)])
	}
	if _, err := o.Ends[1].WriteString("stdout\n"); err != nil {
		t.Fatal(err)
	}
	if got := o.LastWords(); got != strings.Join(want[5:], "\n") {
		t.Errorf("got %q", got)
	}
	if got := o.LastWords(); got != "" {
		t.Errorf("again: %q", got)
	}
}

// More than the burst is lost, and that is told when there is room again.
func TestComponentOutputFlood(t *testing.T) {
	to := &lineRecorder{}
	o := newTestOutput(t, to)
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 2 * linesBurst / 1024
	for range lines {
		if _, err := o.Ends[1].WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	o.Close()
	lost, kept := 0, 0
	for _, l := range to.lines {
		var more int
		if _, err := fmt.Sscanf(l, "stderr false [rich: %d lines are lost]", &more); err == nil {
			lost += more
		} else if strings.HasPrefix(l, "stdout false xxx") {
			kept++
		}
	}
	if lost == 0 || kept < linesBurst/1024 || kept+lost != lines {
		t.Errorf("%d kept, %d lost of %d", kept, lost, lines)
	}
}

// A log that takes nothing does not hold up the component.
func TestComponentOutputRefused(t *testing.T) {
	to := &lineRecorder{refuse: true}
	o := newTestOutput(t, to)
	for range 1000 {
		if _, err := o.Ends[1].WriteString(strings.Repeat("x", 199) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	o.Close()
	if o.lost.Load() != 1000 {
		t.Errorf("%d lines are lost", o.lost.Load())
	}
}

func TestFileLogRotates(t *testing.T) {
	dir := t.TempDir()
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := &File{dir: root, name: "a.log", limit: 1000}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if !l.WriteLine("stdout", fmt.Appendf(nil, "line %d", i), i%2 == 1) {
			t.Fatal("lost")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var all string
	for _, name := range []string{"a.log.1", "a.log"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(content) > 1000 {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		all += string(content)
	}
	lines := strings.Split(strings.TrimSuffix(all, "\n"), "\n")
	for i, line := range lines {
		want := []string{"stdout", map[bool]string{false: "F", true: "P"}[(100-len(lines)+i)%2 == 1], "line", fmt.Sprint(100 - len(lines) + i)}
		if fields := strings.Fields(line); len(fields) != 5 || strings.Join(fields[1:], " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", line, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

// A link in the place of a log is not followed.
func TestFileLogLink(t *testing.T) {
	dir := t.TempDir()
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.Symlink("other", filepath.Join(dir, "a.log")); err != nil {
		t.Fatal(err)
	}
	l := &File{dir: root, name: "a.log", limit: 1000}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	if info, err := os.Lstat(filepath.Join(dir, "a.log")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "other")); err == nil {
		t.Error("the target was made")
	}
}

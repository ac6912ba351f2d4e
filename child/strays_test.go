package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// startNamed starts a copy of a program that has another name.
func startNamed(t *testing.T, program, name string, args ...string) int {
	t.Helper()
	source, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	pid, err := syscall.ForkExec(path, append([]string{name}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Of the dead children that bear a name of libcontainer's, those are waited for that nobody owns.
func TestReapStrays(t *testing.T) {
	start := func(name string) int {
		pid := startNamed(t, "true", name)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			process, err := OpenProc(pid)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := process.Stat()
			process.Close()
			if ok && s.state == "Z" {
				return pid
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not end", name)
			}
		}
	}
	stray, owned, other := start("runc:[1:CHILD]"), start("runc:[2:INIT]"), start("other")
	c := New()
	c.owned[owned] = &libcontainer.Process{}
	c.reap()
	if _, err := unix.Wait4(stray, nil, 0, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("the stray was not waited for: %v", err)
	}
	for _, pid := range []int{owned, other} {
		if got, err := unix.Wait4(pid, nil, 0, nil); err != nil || got != pid {
			t.Errorf("another child is gone: %v", err)
		}
	}
}

// Of the children of a thread, those are killed by the end of a start that bear a name of libcontainer's and that nobody owns.
func TestAbort(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := func(name string) int { return startNamed(t, "sleep", name, "1000") }
	begun, owned, other := start("runc:[1:CHILD]"), start("runc:[2:INIT]"), start("other")
	elsewhere := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		elsewhere <- start("runc:[0:PARENT]")
		<-elsewhere // the children of a thread that ends go to another
	}()
	another := <-elsewhere
	defer close(elsewhere)
	c := New()
	c.owned[owned] = &libcontainer.Process{}
	over := make(chan struct{})
	close(over)
	c.abort(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid()), over)
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(begun, &ws, 0, nil); err != nil || ws.Signal() != syscall.SIGKILL {
		t.Errorf("what has been started: %v, %#x", err, ws)
	}
	for _, pid := range []int{owned, other, another} {
		if got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil); err != nil || got != 0 {
			t.Errorf("another child has ended: %v, %#x", err, ws)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
}

// The end of a child is awaited, and left to be waited for. What is no child is not awaited.
func TestAwaitEnd(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	AwaitEnd(os.Getppid()) // else this never ends
	ended := make(chan struct{})
	go func() {
		AwaitEnd(cmd.Process.Pid)
		close(ended)
	}()
	select {
	case <-ended:
		t.Error("it returned before the end of the child")
	case <-time.After(50 * time.Millisecond):
	}
	stdin.Close()
	<-ended
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child was not left to be waited for: %v", err)
	}
	AwaitEnd(cmd.Process.Pid)
}

package launcher

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/life"
)

// stateLimit is how long a test waits for what must come.
const stateLimit = 30 * time.Second

// startWatch returns a watch, its states, and a connection of a sender.
func startWatch(t *testing.T) (*Watch, <-chan life.InitState, *net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	states := make(chan life.InitState, 100)
	w, err := WatchInit(dir, "n", os.Getuid(), os.Getgid(), life.New(life.Setup{}), func(s life.InitState) { states <- s })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	info, err := os.Stat(filepath.Join(dir, "n"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	at, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	sender, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: socketPath(at, "n")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sender.Close() })
	return w, states, sender
}

func nextState(t *testing.T, states <-chan life.InitState) life.InitState {
	t.Helper()
	select {
	case s := <-states:
		if s.Since.IsZero() {
			t.Errorf("%+v has no time", s)
		}
		return s
	case <-time.After(stateLimit):
		t.Fatal("no state")
		panic("not reached")
	}
}

func TestInitWatch(t *testing.T) {
	w, states, sender := startWatch(t)
	if got := nextState(t, states); got.State != life.InitStarting {
		t.Errorf("at first it is %+v", got)
	}
	for _, step := range []struct {
		message, event string
		state, text    string
	}{
		{"STATUS=Hello\x1b[2J \xff world\n", "", life.InitStarting, "Hello[2J  world"},
		{"X_SYSTEMD_UNIT_ACTIVE=basic.target\nREADY=1\nSTATUS=Ready.", "", life.InitRunning, "Ready."},
		{"", life.InitDegraded, life.InitDegraded, "Ready."},
		// Ready a second time is no other state, and the rest is nothing.
		{"READY=1\nREADY=1\n\n=\nSTOPPING\nSTATUS=again", "", life.InitDegraded, "again"},
		{"", life.InitStopping, life.InitStopping, "again"},
	} {
		if step.event != "" {
			w.told(step.event)
		} else if _, err := sender.Write([]byte(step.message)); err != nil {
			t.Fatal(err)
		}
		if got := nextState(t, states); got.State != step.state || got.Text != step.text {
			t.Errorf("after %q it is %+v, want %q with %q", step.message+step.event, got, step.state, step.text)
		}
	}
	w.told(life.InitRunning)
	select {
	case got := <-states:
		t.Errorf("after the end it is %+v", got)
	default:
	}
}

// What a hostile container can send costs nothing that lasts.
func TestInitWatchHostile(t *testing.T) {
	_, states, sender := startWatch(t)
	nextState(t, states)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	reader := os.NewFile(uintptr(pipe[0]), "pipe")
	defer reader.Close()
	raw, err := sender.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(int(fd), []byte("STATUS=one"), unix.UnixRights(pipe[1], pipe[1], pipe[1]), nil, 0)
	})
	switch {
	case errors.Is(sent, unix.EPERM):
		// The kernel can refuse descriptors, and does.
	case err != nil || sent != nil:
		t.Fatal(err, sent)
	default:
		if got := nextState(t, states); got.Text != "one" {
			t.Errorf("got %+v", got)
		}
	}
	unix.Close(pipe[1])
	ended := make(chan struct{})
	go func() {
		_, _ = reader.Read(make([]byte, 1)) // it ends by EOF: nobody has the other end
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stateLimit):
		t.Error("a descriptor is kept")
	}
	if _, err := sender.Write([]byte("STATUS=" + strings.Repeat("ü", 10*maxNotify))); err != nil {
		t.Fatal(err)
	}
	if got := nextState(t, states); len(got.Text) > maxNotifyText || !strings.HasPrefix(got.Text, "üü") || strings.ContainsRune(got.Text, '\ufffd') {
		t.Errorf("got %d bytes: %q", len(got.Text), got.Text)
	}
	for range 10 * notifyBurst {
		// It takes no more after a while, and has to end all the same.
		if err := sender.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := sender.Write(nil); err != nil {
			return
		}
	}
	t.Error("there is no limit to what it takes")
}

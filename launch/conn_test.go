package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketpair returns two ends of a unix stream socket. A test that hangs on
// one of them fails after a minute.
func socketpair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

func pair(t *testing.T) (shim, container *Conn) {
	a, b := socketpair(t)
	return NewConn(a, MaxFromContainer), NewConn(b, MaxFromShim)
}

// pipe returns the ends of a pipe.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// openFiles counts the process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestConnMessages(t *testing.T) {
	shim, container := pair(t)
	go func() {
		for _, m := range messages {
			if err := shim.Send(m); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, want := range messages {
		got, files, err := container.Receive()
		if err != nil || len(files) != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, %v, want %+v", got, files, err, want)
		}
	}
}

// TestConnFiles sends descriptors with every second message, all of them
// before the first is received, and looks at which message they come with.
func TestConnFiles(t *testing.T) {
	shim, container := pair(t)
	const rounds = 5
	var readers []*os.File
	for i := range rounds {
		r, w := pipe(t)
		readers = append(readers, r)
		if err := shim.Send(Signal{Number: i + 1}); err != nil {
			t.Fatal(err)
		}
		if err := shim.Send(Start{Record: Record{Cwd: fmt.Sprint("/", i)}}, w, w, w); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	for i, r := range readers {
		if m, files, err := container.Receive(); err != nil || m != (Signal{Number: i + 1}) || len(files) != 0 {
			t.Fatalf("got %+v, %v, %v", m, files, err)
		}
		m, files, err := container.Receive()
		if err != nil || len(files) != 3 || m.(Start).Record.Cwd != fmt.Sprint("/", i) {
			t.Fatalf("got %+v, %v, %v", m, files, err)
		}
		for _, f := range files {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v: not close-on-exec", flags, err)
			}
			fmt.Fprint(f, i)
			f.Close()
		}
		// The end of file shows that there is no other copy.
		if got, err := io.ReadAll(r); err != nil || string(got) != strings.Repeat(fmt.Sprint(i), 3) {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

// TestConnLargest sends a frame far greater than the socket's buffer, with
// files, to a peer that reads it in pieces.
func TestConnLargest(t *testing.T) {
	shim, container := pair(t)
	r, w := pipe(t)
	want := Start{Record: Record{Args: []string{strings.Repeat("x", MaxFromShim-1000)}}}
	sent := make(chan error)
	go func() { sent <- shim.Send(want, w, w, w) }()
	got, files, err := container.Receive()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err != nil || len(files) != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %.100v, %v, %v", got, files, err)
	}
	for _, f := range files {
		f.Close()
	}
	w.Close()
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}

	want.Record.Args[0] += strings.Repeat("x", 1000)
	if err := shim.Send(want); !errors.Is(err, ErrFrameSize) {
		t.Errorf("sending more: %v, want ErrFrameSize", err)
	}
	// Nothing of it was sent.
	if err := shim.Send(Signal{Number: 1}); err != nil {
		t.Error(err)
	}
	if m, _, err := container.Receive(); err != nil || m != (Signal{Number: 1}) {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestConnSendTooManyFiles(t *testing.T) {
	shim, _ := pair(t)
	_, w := pipe(t)
	for _, test := range []struct {
		m     Message
		files int
	}{{Start{}, 4}, {Console{}, 2}, {Signal{Number: 1}, 1}} {
		if err := shim.Send(test.m, make([]*os.File, test.files)...); err == nil {
			t.Errorf("%T with %d files was sent", test.m, test.files)
		}
	}
	if err := shim.Send(Console{}, w); err != nil {
		t.Error(err)
	}
}

func TestConnSendConcurrently(t *testing.T) {
	shim, container := pair(t)
	const senders, each = 8, 50
	var group sync.WaitGroup
	for i := range senders {
		group.Go(func() {
			for range each {
				if err := shim.Send(Refuse{Reason: strings.Repeat(fmt.Sprint(i), 20000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range senders * each {
		m, _, err := container.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if s := m.(Refuse).Reason; s != strings.Repeat(s[:1], 20000) {
			t.Fatal("frames are mixed")
		}
	}
	group.Wait()
}

func frame(k kind, body []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	return append(append(b, byte(k)), body...)
}

func TestConnGarbage(t *testing.T) {
	hello := frame(kindHello, encode(messages[0]))
	for name, test := range map[string]struct {
		input []byte
		want  error
	}{
		"nothing":           {nil, io.EOF},
		"half a head":       {hello[:3], io.ErrUnexpectedEOF},
		"a head only":       {hello[:headSize], io.ErrUnexpectedEOF},
		"half a body":       {hello[:len(hello)-1], io.ErrUnexpectedEOF},
		"one byte too much": {frame(kindEvent, make([]byte, MaxFromContainer+1)), ErrFrameSize},
		"4 GiB":             {[]byte{0xff, 0xff, 0xff, 0xff, byte(kindEvent)}, ErrFrameSize},
		"an unknown type":   {frame(99, []byte("x")), ErrMalformed},
		"a bad body":        {frame(kindHello, []byte("x")), ErrMalformed},
		"the greatest body": {frame(kindEvent, make([]byte, MaxFromContainer)), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			raw, peer := socketpair(t)
			conn := NewConn(peer, MaxFromContainer)
			go func() {
				// The receiver may have had enough of it.
				_, _ = raw.Write(test.input)
				raw.CloseWrite()
			}()
			if m, _, err := conn.Receive(); !errors.Is(err, test.want) {
				t.Errorf("got %+v, %v, want %v", m, err, test.want)
			}
		})
	}
}

func TestConnReceivesAfterMalformed(t *testing.T) {
	raw, peer := socketpair(t)
	conn := NewConn(peer, MaxFromContainer)
	input := append(frame(99, []byte("what?")), frame(kindSignal, encode(Signal{Number: 1}))...)
	if _, err := raw.Write(input); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Receive(); !errors.Is(err, ErrMalformed) {
		t.Fatalf("error %v, want ErrMalformed", err)
	}
	if m, _, err := conn.Receive(); err != nil || m != (Signal{Number: 1}) {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestConnByteByByte has a frame arrive in the smallest pieces there are, with
// descriptors at every one of them.
func TestConnByteByByte(t *testing.T) {
	before := openFiles(t)
	for _, test := range []struct {
		m    Message
		want int
	}{{Start{Record: Record{Cwd: "/"}}, 3}, {Console{}, 1}, {Hello{Role: RoleService}, 0}} {
		raw, peer := socketpair(t)
		conn := NewConn(peer, MaxFromShim)
		_, w := pipe(t)
		go func() {
			for _, b := range frame(test.m.kind(), encode(test.m)) {
				if _, _, err := raw.WriteMsgUnix([]byte{b}, unix.UnixRights(int(w.Fd())), nil); err != nil {
					t.Error(err)
				}
			}
		}()
		m, files, err := conn.Receive()
		if err != nil || !reflect.DeepEqual(m, test.m) {
			t.Errorf("got %+v, %v", m, err)
		}
		if len(files) != test.want {
			t.Errorf("%T: %d files, want %d", m, len(files), test.want)
		}
		for _, f := range files {
			f.Close()
		}
		raw.Close()
		peer.Close()
	}
	// The pipes, two descriptors each, are closed when the test is done.
	if after := openFiles(t) - 6; after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestConnClosesFiles has descriptors come where they must not, and more than
// may.
func TestConnClosesFiles(t *testing.T) {
	many := func(w *os.File) []byte {
		fds := make([]int, 200)
		for i := range fds {
			fds[i] = int(w.Fd())
		}
		return unix.UnixRights(fds...)
	}
	for name, test := range map[string]struct {
		input []byte
		ok    bool
	}{
		"a message without files": {frame(kindSignal, encode(Signal{Number: 1})), true},
		"a message with files":    {frame(kindStart, encode(Start{})), true},
		"an unknown type":         {frame(99, nil), false},
		"a frame too long":        {[]byte{0xff, 0xff, 0xff, 0xff, 1}, false},
		"half a frame":            {[]byte{1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			raw, peer := socketpair(t)
			conn := NewConn(peer, MaxFromContainer)
			r, w := pipe(t)
			if _, _, err := raw.WriteMsgUnix(test.input, many(w), nil); err != nil {
				t.Fatal(err)
			}
			raw.CloseWrite()
			m, files, err := conn.Receive()
			if test.ok != (err == nil) {
				t.Fatalf("got %+v, %v", m, err)
			}
			if len(files) > 3 {
				t.Errorf("%d files", len(files))
			}
			for _, f := range files {
				f.Close()
			}
			w.Close()
			// Hangs, and fails by the deadline, if a copy is left open.
			r.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadAll(r); err != nil {
				t.Errorf("descriptors were left open: %v", err)
			}
		})
	}
}

func TestConnDeadline(t *testing.T) {
	_, container := pair(t)
	container.SetDeadline(time.Now())
	if m, _, err := container.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("receive: got %+v, %v, want ErrDeadlineExceeded", m, err)
	}
}

// TestConnBroken lets the deadline pass within a frame: nothing may follow it.
func TestConnBroken(t *testing.T) {
	near, peer := socketpair(t)
	shim := NewConn(near, MaxFromContainer)
	go func() {
		if _, err := peer.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		shim.SetDeadline(time.Now())
	}()
	big := Start{Record: Record{Args: []string{strings.Repeat("x", MaxFromShim/2)}}}
	for range 2 {
		if err := shim.Send(big); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("send: %v, want ErrDeadlineExceeded", err)
		}
		shim.SetDeadline(time.Time{})
	}
}

func TestConnClose(t *testing.T) {
	_, container := pair(t)
	done := make(chan error)
	go func() {
		_, _, err := container.Receive()
		done <- err
	}()
	container.Close()
	if err := <-done; err == nil {
		t.Error("Receive on a closed connection succeeded")
	}
}

func TestConnPeerGone(t *testing.T) {
	shim, container := pair(t)
	shim.Close()
	if err := container.Send(Started{PID: 1}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("send: %v, want EPIPE", err)
	}
	if _, _, err := container.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("receive: %v, want EOF", err)
	}
}

// TestConnFile uses a blocking *os.File on one side, as the launcher does.
func TestConnFile(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := NewConn(os.NewFile(uintptr(fds[0]), "a"), MaxFromShim)
	b := NewConn(os.NewFile(uintptr(fds[1]), "b"), MaxFromShim)
	defer b.Close()
	want := Start{Record: fullRecord()}
	go func() {
		if err := a.Send(want); err != nil {
			t.Error(err)
		}
		a.Close()
	}()
	if got, _, err := b.Receive(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %.100v, %v", got, err)
	}
	if _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want EOF", err)
	}
	if err := b.SetDeadline(time.Now()); err == nil {
		t.Error("a blocking socket took a deadline")
	}
}

func TestFrameLayout(t *testing.T) {
	raw, peer := socketpair(t)
	if err := NewConn(peer, 0).Send(Exited{Status: 3, Requested: true}); err != nil {
		t.Fatal(err)
	}
	want := []byte{5, 0, 0, 0, byte(kindExited), 3, 0, 0, 0, 1}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(raw, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

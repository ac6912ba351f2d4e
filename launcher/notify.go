package launcher

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/launch"
	"containerd-shim-rich/life"
)

const (
	// maxNotify is the size in bytes of a message that systemd itself takes
	// (NOTIFY_BUFFER_MAX). What is beyond is lost.
	maxNotify = 4 << 10
	// maxNotifyText bounds what is kept of a status text, in bytes.
	maxNotifyText = 200
	// notifyBurst and then notifyRate messages a second are taken; others
	// wait with their sender. A boot of systemd 262 sends 25.
	notifyBurst = 1000
	notifyRate  = 20
)

// Watch follows what an init tells about its state: that it is ready, by the
// protocol of sd_notify(3), and the rest by events of our own units. A nil one
// hears nothing.
//
// Sizes and rates are bounded. Descriptors that come along are dropped by the
// kernel, for which there is no room to put them.
type Watch struct {
	socket  *net.UnixConn
	life    *life.Life
	changed func(life.InitState)
	limit   *rate.Limiter
	news    chan func(time.Time) (life.InitState, bool) // for life
	cancel  context.CancelFunc
	read    chan struct{} // closed when nothing is read any more
	noted   chan struct{} // and when nothing is told
}

// maxNews bounds how many events wait to be told.
const maxNews = 16

// WatchInit opens the socket name in dir, which is for the user who pid 1 is (uid
// and gid on the host), until Close. changed is called with each new state.
func WatchInit(dir, name string, uid, gid int, of *life.Life, changed func(life.InitState)) (*Watch, error) {
	at, err := hostfs.Open(dir)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socketPath(at, name)})
	if err != nil {
		return nil, err
	}
	if err := at.ChownSocket(name, uid, gid); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	launch.RefuseRights(socket)
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watch{
		socket: socket, life: of, changed: changed, limit: rate.NewLimiter(notifyRate, notifyBurst),
		news:   make(chan func(time.Time) (life.InitState, bool), maxNews),
		cancel: cancel, read: make(chan struct{}), noted: make(chan struct{}),
	}
	w.told(life.InitStarting)
	go w.receive(ctx)
	go w.note(ctx)
	return w, nil
}

// note tells each new state: one after the other, from wherever it comes.
func (w *Watch) note(ctx context.Context) {
	defer close(w.noted)
	for {
		select {
		case change := <-w.news:
			if s, changed := change(time.Now()); changed {
				w.changed(s)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (w *Watch) receive(ctx context.Context) {
	// What nobody has read may hold anything.
	defer launch.Drop(w.socket)
	defer close(w.read)
	buf := make([]byte, maxNotify)
	for w.limit.Wait(ctx) == nil {
		n, _, _, _, err := w.socket.ReadMsgUnix(buf, nil)
		if err != nil {
			return
		}
		select {
		case w.news <- w.parse(buf[:n]):
		case <-ctx.Done():
		}
	}
}

// parse reads one message.
func (w *Watch) parse(message []byte) func(time.Time) (life.InitState, bool) {
	ready := false
	var text *string
	for line := range bytes.Lines(message) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		switch key {
		case "READY":
			ready = ready || value == "1"
		case "STATUS":
			value = printable(value)
			text = &value
		}
	}
	return func(now time.Time) (life.InitState, bool) { return w.life.InitReady(ready, text, now) }
}

// told notes a state that an event told.
func (w *Watch) told(state string) {
	if w == nil || !w.limit.Allow() { // no init has so much to say
		return
	}
	select {
	case w.news <- func(now time.Time) (life.InitState, bool) { return w.life.InitIs(state, now) }:
	default: // nor so fast
	}
}

// printable makes any text fit a log.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > maxNotifyText {
		text = strings.ToValidUTF8(text[:maxNotifyText], "")
	}
	return text
}

// Close ends it. Who holds it up is not waited for.
func (w *Watch) Close() {
	if w == nil {
		return
	}
	w.cancel()
	_ = w.socket.SetReadDeadline(time.Now()) // it may be closed already
	awaitStuck(w.read)
	await(w.noted)
}

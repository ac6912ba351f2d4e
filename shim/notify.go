package shim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/launch"

	"containerd-shim-rich/bundle"
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

// The states of an init, named as by `systemctl is-system-running`.
const (
	initStarting    = "starting"
	initRunning     = "running"
	initDegraded    = "degraded"
	initMaintenance = "maintenance"
	initStopping    = "stopping"
)

// initState is what initFile tells about the init.
type initState struct {
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Text is the init's own words, if there are any.
	Text string `json:"text,omitempty"`
}

// initWatch follows what an init tells about its state: that it is ready, by
// the protocol of sd_notify(3), and the rest by events of our own units.
//
// Root of the container can send as well, and lie about its own container
// only. Sizes and rates are bounded. Descriptors that come along are dropped
// by the kernel, for which there is no room to put them.
type initWatch struct {
	socket  *net.UnixConn
	changed func(initState)
	limit   *rate.Limiter
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	state  initState
	closed bool
}

// watchInit opens the socket in dir, which is for the user who pid 1 is (uid
// and gid on the host). changed is called with each new state.
func watchInit(dir, name string, uid, gid int, changed func(initState)) (*initWatch, error) {
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
	w := &initWatch{
		socket: socket, changed: changed, limit: rate.NewLimiter(notifyRate, notifyBurst),
		cancel: cancel, done: make(chan struct{}),
	}
	w.set(initStarting)
	go w.read(ctx)
	return w, nil
}

func (w *initWatch) read(ctx context.Context) {
	// What nobody has read may hold anything.
	defer launch.Drop(w.socket)
	defer close(w.done)
	buf := make([]byte, maxNotify)
	for w.limit.Wait(ctx) == nil {
		n, _, _, _, err := w.socket.ReadMsgUnix(buf, nil)
		if err != nil {
			return
		}
		w.take(buf[:n])
	}
}

// take reads one message.
func (w *initWatch) take(message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.state
	for line := range bytes.Lines(message) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		switch {
		case key == "READY" && value == "1" && next.State == initStarting:
			next.State = initRunning
		case key == "STATUS":
			next.Text = printable(value)
		}
	}
	w.become(next)
}

// set notes a state that an event told. A container does not come back from
// its end.
func (w *initWatch) set(state string) {
	if !w.limit.Allow() {
		return // no init has so much to say
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.state
	if next.State != initStopping {
		next.State = state
	}
	w.become(next)
}

func (w *initWatch) become(next initState) {
	if w.closed || next == w.state {
		return
	}
	if next.State != w.state.State {
		next.Since = time.Now()
	}
	w.state = next
	w.changed(next)
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

// close ends it. Who holds it up is not waited for.
func (w *initWatch) close() {
	w.cancel()
	_ = w.socket.SetReadDeadline(time.Now()) // it may be closed already
	awaitStuck(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true // what comes later is about nobody
}

// noteInit tells the state of the init, in the log and in a file of the
// bundle.
func (c *container) noteInit(s initState) {
	c.log.WithField("state", s.State).WithField("text", s.Text).Info("state of the init")
	if err := c.bundle.Store(bundle.InitFile, s); err != nil {
		c.log.WithError(err).Warn("store the state of the init")
	}
}

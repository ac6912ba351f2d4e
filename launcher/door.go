package launcher

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/launch"
)

const (
	// maxConns bounds how many connections a container may have open, beside
	// one for each component.
	maxConns = 8
	// helloTimeout bounds how long a connection may stay silent.
	helloTimeout = 10 * time.Second
	// reportTimeout bounds how long a report is waited for that a launcher
	// sent before its container was gone: it only has to be read. Only
	// somebody outside of the container can keep a connection open longer.
	reportTimeout = 2 * time.Second
	// acceptPause is how long nothing is accepted after an error, such as
	// that of a process with too many open files.
	acceptPause = 100 * time.Millisecond
)

// door is where the launchers of a container come in: a socket, and the
// connections that are open. The container's root can come in as well, with
// descriptors that hold up whoever closes them. Therefore each socket is closed
// by the goroutine that has read it, and nobody waits for that one without a
// bound.
type door struct {
	listener *net.UnixListener
	slots    chan struct{}
	serve    func(*launch.Conn) error
	log      *log.Entry
	closing  chan struct{} // closed when nobody is to come in any more

	mu     sync.Mutex
	conns  map[*launch.Conn]struct{} // those being served
	closed bool
	left   chan struct{} // closed when it is closed and nobody is served
}

// openDoor serves a socket in dir, which is for the user who the launcher is
// (uid and gid on the host), with at most so many connections at a time. files
// says that one of them may have to send a descriptor.
func openDoor(dir string, uid, gid, most int, files bool, entry *log.Entry, serve func(*launch.Conn) error) (*door, error) {
	at, err := hostfs.Open(dir)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socketPath(at, bundle.LauncherSocket)})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := at.ChownSocket(bundle.LauncherSocket, uid, gid); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if !files {
		launch.RefuseRights(listener)
	}
	d := &door{
		listener: listener,
		slots:    make(chan struct{}, most),
		serve:    serve,
		log:      entry,
		closing:  make(chan struct{}),
		conns:    map[*launch.Conn]struct{}{},
		left:     make(chan struct{}),
	}
	go d.accept()
	return d, nil
}

// socketPath names a socket in an open directory: its path may be longer
// than a socket's address can be (unix(7)).
func socketPath(dir *hostfs.Dir, name string) string { return dir.Path() + "/" + name }

func (d *door) accept() {
	// Connections that nobody has accepted may hold anything.
	defer launch.Drop(d.listener)
	for {
		select {
		case d.slots <- struct{}{}:
		case <-d.closing:
			return
		}
		c, err := d.listener.AcceptUnix()
		if err != nil {
			<-d.slots
			select {
			case <-d.closing:
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		conn := launch.NewConn(c, launch.MaxGreeting)
		conn.ExpectFiles(0)
		d.mu.Lock()
		closed := d.closed
		if !closed {
			d.conns[conn] = struct{}{}
		}
		d.mu.Unlock()
		if closed {
			launch.Drop(conn)
			return
		}
		go d.attend(conn)
	}
}

// attend serves a connection, and closes it when nobody waits for that any
// more.
func (d *door) attend(conn *launch.Conn) {
	// The latter if a launcher has left without reading all.
	if err := d.serve(conn); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		d.log.WithError(err).Warn("launcher")
	}
	d.mu.Lock()
	delete(d.conns, conn)
	if d.closed && len(d.conns) == 0 {
		close(d.left)
	}
	d.mu.Unlock()
	launch.Drop(conn)
	<-d.slots
}

// untimed lets a connection stay silent as long as the container runs.
func (d *door) untimed(conn *launch.Conn) error { return d.deadline(conn, time.Time{}) }

// deadline sets the time until which a connection may stay silent, unless the
// end of all of them is set.
func (d *door) deadline(conn *launch.Conn, at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return conn.SetDeadline(at)
}

// close lets nobody in any more once the container is gone. What a launcher
// has reported before is taken in; who says nothing is not waited for longer
// than reportTimeout, whatever its connection is held up by.
func (d *door) close() {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.closing)
		if len(d.conns) == 0 {
			close(d.left)
		}
		for c := range d.conns {
			_ = c.SetDeadline(time.Now().Add(reportTimeout))
		}
	}
	d.mu.Unlock()
	_ = d.listener.SetDeadline(time.Now()) // it may be closed already
	awaitStuck(d.left)
}

// awaitStuck waits until done is closed, for reportTimeout at the most. What is
// held up in the kernel is then made to get on.
func awaitStuck(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(reportTimeout):
		go launch.Unstick(done)
	}
}

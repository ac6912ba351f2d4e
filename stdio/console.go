package stdio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
)

// maxInitLog bounds the log of an init in bytes: half of it is kept when it
// is full. The bundle usually lies in memory.
const maxInitLog = 256 << 10

// consoleGrace bounds how long the last words of an init are waited for.
const consoleGrace = time.Second

// ConsoleLog writes what appears on an init's console to a file.
type ConsoleLog struct {
	pty, peer *os.File
	done      chan struct{}
}

// LogConsole calls back when a text of the spotter appears.
func LogConsole(master *os.File, path string, spot *Spotter) (*ConsoleLog, error) {
	// Inits close and reopen their console. With no process having it open,
	// reading it would end, and writing to it would block some day.
	peer, err := openPeer(master)
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	pty, err := Pollable(master)
	if err != nil {
		return nil, errors.Join(err, peer.Close())
	}
	file, err := createFile(path)
	if err != nil {
		return nil, errors.Join(err, pty.Close(), peer.Close())
	}
	l := &ConsoleLog{pty: pty, peer: peer, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer file.Close()
		to := &boundedLog{file: file, limit: maxInitLog}
		buf := make([]byte, terminalBuffer)
		for {
			n, err := pty.Read(buf)
			// Systemd ends its lines with CR LF, the terminal adds a CR.
			line := bytes.ReplaceAll(buf[:n], []byte("\r"), nil)
			spot.look(line)
			if _, werr := to.Write(line); werr != nil {
				// The disk may be full; the init must not block on that.
				log.L.WithError(werr).Debug("write the init's log")
			}
			if err != nil {
				return
			}
		}
	}()
	return l, nil
}

// createFile makes a file of ours.
func createFile(path string) (*os.File, error) {
	dir, err := hostfs.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Create(filepath.Base(path), 0o600)
}

// Close ends the log when no process has the console any more.
func (l *ConsoleLog) Close() error {
	if l == nil {
		return nil
	}
	err := l.peer.Close()
	select {
	case <-l.done:
	case <-time.After(consoleGrace):
	}
	return errors.Join(err, l.pty.Close())
}

// openPeer opens the other side of a pty, whatever file system it is in
// (ioctl_tty(2)).
func openPeer(master *os.File) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	return os.NewFile(fd, "pty"), nil
}

// Spotter looks for a text in a stream.
type Spotter struct {
	Text  []byte
	Found func()
	tail  []byte // of what went by, shorter than the text
}

func (s *Spotter) look(p []byte) {
	if len(s.Text) == 0 {
		return
	}
	s.tail = append(s.tail, p...)
	if bytes.Contains(s.tail, s.Text) {
		s.Found()
		s.tail = nil
	}
	s.tail = bytes.Clone(s.tail[max(0, len(s.tail)-len(s.Text)+1):])
}

// boundedLog drops the older half of a file when it reaches its limit.
type boundedLog struct {
	file  *os.File
	limit int64
	size  int64
}

func (l *boundedLog) Write(p []byte) (int, error) {
	if l.size+int64(len(p)) > l.limit {
		if err := l.halve(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.WriteAt(p, l.size)
	l.size += int64(n)
	return n, err
}

func (l *boundedLog) halve() error {
	keep := make([]byte, l.size/2)
	if _, err := l.file.ReadAt(keep, l.size-int64(len(keep))); err != nil {
		return err
	}
	if _, err := l.file.WriteAt(keep, 0); err != nil {
		return err
	}
	l.size = int64(len(keep))
	return l.file.Truncate(l.size)
}

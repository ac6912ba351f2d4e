package shim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// socketFile is the file of the socket that this process serves.
type socketFile struct {
	path string
	info os.FileInfo
}

// pathOf is the path of an address as containerd writes it.
func pathOf(address string) string { return strings.TrimPrefix(address, "unix://") }

func socketAt(address string) (socketFile, error) {
	path := pathOf(address)
	info, err := os.Lstat(path)
	return socketFile{path, info}, err
}

// remove removes the file, unless another shim has taken its place: one that
// finds nobody listening listens there itself.
func (s socketFile) remove() error {
	unlock, err := lockSockets(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	defer unlock()
	now, err := os.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !os.SameFile(now, s.info) {
		return err
	}
	return os.Remove(s.path)
}

// serving reports whether a shim listens at a path. It does not wait: the
// kernel knows, also if the shim is too busy to answer or has been stopped.
func serving(path string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case err == nil, errors.Is(err, unix.EAGAIN): // its queue is full (unix(7))
		return true, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return false, nil
	default:
		return false, &os.PathError{Op: "connect", Path: path, Err: err}
	}
}

// newName is the name at which a shim for a container listens before it has
// the one of its group.
func newName(path, id string) string {
	// The address of a socket has room for no long name (unix(7)).
	return filepath.Join(filepath.Dir(path), fmt.Sprintf("%.8x.new", sha256.Sum256([]byte(path+"\x00"+id))))
}

// listen opens the shim's socket for a container. If another shim of the same
// group serves it already, the error is errdefs.ErrAlreadyExists.
//
// The socket gets its name when it listens. Between bind(2) and listen(2) it
// would look like that of a shim that was killed.
func listen(path, id string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l, err := listenUnnamed(newName(path, id))
	if err != nil {
		return nil, err
	}
	err = takeName(newName(path, id), path)
	if err := errors.Join(err, os.Remove(newName(path, id))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// listenUnnamed listens at a path that only this process uses.
func listenUnnamed(path string) (*net.UnixListener, error) {
	// A start that was killed may have left it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the shim removes it at its end
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	return l, nil
}

// takeName gives a socket that listens its name, unless another one that
// listens has it.
func takeName(from, path string) error {
	if err := os.Link(from, path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	if alive, err := serving(path); err != nil || alive {
		return alreadyServed(err)
	}
	// A shim was killed and could not remove it. Whoever else finds that out
	// waits here, and then finds this one.
	unlock, err := lockSockets(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	if alive, err := serving(path); err != nil || alive {
		return alreadyServed(err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(from, path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errdefs.ErrAlreadyExists // by one that found no name to replace
}

func alreadyServed(err error) error {
	if err != nil {
		return err
	}
	return errdefs.ErrAlreadyExists
}

// removeDeadSocket removes a socket at which nobody listens.
func removeDeadSocket(path string) error {
	unlock, err := lockSockets(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if alive, err := serving(path); err != nil || alive {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

const (
	// lockWait bounds how long another process may hold the lock.
	lockWait = 5 * time.Second
	lockPoll = 5 * time.Millisecond
)

// lockSockets keeps others from removing sockets of a directory.
func lockSockets(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline):
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
		}
	}
}

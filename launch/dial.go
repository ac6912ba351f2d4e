package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Dial connects to the unix stream socket at path. The file is in blocking
// mode: a Conn on it has no deadlines, and Close does not end a Receive that
// waits. That is what the launcher wants, which then needs neither package net
// nor the runtime's poller; who wants deadlines uses net.DialUnix.
func Dial(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

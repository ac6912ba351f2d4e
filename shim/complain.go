package shim

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// complainTimeout bounds how long the reader of the CMD's output is waited for
// with a message of ours.
const complainTimeout = time.Second

// complain prints an error where the CMD's own messages would be, if somebody
// reads there.
func (o *stdio) complain(err error) {
	switch {
	case o.tty != nil && o.tty.stdout != nil:
		_ = o.tty.stdout.SetWriteDeadline(time.Now().Add(complainTimeout))
		fmt.Fprintf(o.tty.stdout, "rich: %v\r\n", err)
		_ = o.tty.stdout.SetWriteDeadline(time.Time{})
	case o.files[2] != nil:
		// Opened anew: the CMD's own writes wait for the reader.
		fd, openErr := reopen(o.files[2])
		if openErr != nil {
			return
		}
		defer unix.Close(fd)
		writeWithin(fd, fmt.Appendf(nil, "rich: %v\n", err), complainTimeout)
	}
}

// writeWithin writes to a descriptor that does not block, for a time at the
// most.
func writeWithin(fd int, text []byte, limit time.Duration) {
	for deadline := time.Now().Add(limit); len(text) > 0; {
		n, err := unix.Write(fd, text)
		if err == nil {
			text = text[n:]
			continue
		}
		left := time.Until(deadline)
		if left <= 0 || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
	}
}

package stdio

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// complainTimeout bounds how long the reader of the command's output is waited for
// with a message of ours.
const complainTimeout = time.Second

// Complain prints an error where the command's own messages would be, if somebody
// reads there.
func (o *Streams) Complain(err error) {
	switch {
	case o.tty != nil && o.tty.stdout != nil:
		_ = o.tty.stdout.SetWriteDeadline(time.Now().Add(complainTimeout))
		fmt.Fprintf(o.tty.stdout, "rich: %v\r\n", err)
		_ = o.tty.stdout.SetWriteDeadline(time.Time{})
	case o.files[2] != nil:
		// Opened anew: the command's own writes wait for the reader.
		fd, openErr := reopen(o.files[2])
		if openErr != nil {
			return
		}
		defer unix.Close(fd)
		writeWithin(fd, fmt.Appendf(nil, "rich: %v\n", err), complainTimeout)
	}
}

// Anew opens stdout and stderr once more, for writes that do not wait for the
// reader as the process's own do, and says how a line ends there. A descriptor
// is -1 where nobody reads.
func (o *Streams) Anew() (fds [2]int, end string, err error) {
	files, end := [2]*os.File{o.files[1], o.files[2]}, "\n"
	if o.tty != nil {
		files, end = [2]*os.File{o.tty.stdout, o.tty.stdout}, "\r\n"
	}
	fds = [2]int{-1, -1}
	for i, f := range files {
		if f == nil {
			continue
		}
		if fds[i], err = reopen(f); err != nil {
			if fds[0] >= 0 && i == 1 {
				unix.Close(fds[0])
			}
			return [2]int{-1, -1}, "", err
		}
	}
	return fds, end, nil
}

// reopen opens the file behind a descriptor for writes that do not wait.
func reopen(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var openErr error
	err = raw.Control(func(have uintptr) {
		fd, openErr = unix.Open(fmt.Sprintf("/proc/self/fd/%d", have), unix.O_WRONLY|unix.O_APPEND|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	return fd, errors.Join(err, openErr)
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

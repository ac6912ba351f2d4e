package stdio

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Drain reads what is in a pipe now, limit bytes at the most: whoever writes to
// it may do so for ever. It takes no note of deadlines.
func Drain(conn syscall.RawConn, buf []byte, limit int, take func([]byte)) {
	_ = conn.Control(func(fd uintptr) { // it fails if the pipe is closed
		for total := 0; total < limit; {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			take(buf[:n])
			total += n
		}
	})
}

package launch

import (
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stuckAfter is how long a system call may take that a peer can hold up,
	// before the kernel is asked to get on with it. The pauses between two such
	// requests double up to stuckMost: what does not heed one will hardly heed
	// the next.
	stuckAfter = 500 * time.Millisecond
	stuckMost  = time.Minute
)

// Drop closes what a peer has sent, or a socket in which something of a peer's
// may wait. The last close of a TCP socket lingers for as long as its owner has
// wished (socket(7), SO_LINGER), and that of a file of a FUSE file system waits
// for its daemon. So Drop belongs into a goroutine that nobody waits for
// without a bound.
func Drop(c io.Closer) {
	done := make(chan struct{})
	late := time.AfterFunc(stuckAfter, func() { Unstick(done) })
	_ = c.Close() // nothing of ours is lost by it
	close(done)
	late.Stop()
}

// Unstick ends the waits of system calls of this process that a signal can end,
// again and again until done is closed. A close that lingers is one, and so is
// a read by which the kernel drops a descriptor that lingers. (Linux 6.18: a
// close that waits for a FUSE daemon is none; it ends with the daemon.)
func Unstick(done <-chan struct{}) {
	for pause := stuckAfter; ; pause = min(2*pause, stuckMost) {
		interruptThreads()
		select {
		case <-done:
			return
		case <-time.After(pause):
		}
	}
}

// soPassRights is SO_PASSRIGHTS (Linux 6.16).
const soPassRights = 83

// RefuseRights makes the kernel refuse descriptors that are sent to a socket,
// and to those that connect to it, if it can: their sender gets EPERM.
func RefuseRights(socket syscall.Conn) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, soPassRights, 0) })
}

// interruptThreads sends each thread of this process a signal that the Go
// runtime takes for its own, at any time and any number of times (runtime,
// sigPreempt): it ends a system call that can be interrupted.
func interruptThreads() {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // it may have ended
		}
	}
}

// fileDescriptor is one that is not a file yet.
type fileDescriptor int

// Close closes the descriptor.
func (fd fileDescriptor) Close() error { return unix.Close(int(fd)) }

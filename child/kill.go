package child

import (
	"errors"
	"os"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Kill kills pid 1 of a container that is no child of this process, and
// returns a function that waits for its end until limit is over. It does nothing to a process that
// has got its number since.
func Kill(s *libcontainer.State, limit time.Duration) (wait func() error, _ error) {
	nothing := func() error { return nil }
	if s.InitProcessPid <= 0 {
		return nothing, nil
	}
	fd, err := unix.PidfdOpen(s.InitProcessPid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nothing, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// Whoever has the number now is held: if it is the one that began then,
	// it is pid 1.
	if st, ok := statOf(s.InitProcessPid); !ok || st.began != s.InitProcessStartTime || st.state == "Z" {
		pidfd.Close()
		return nothing, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		pidfd.Close()
		return nil, os.NewSyscallError("pidfd_send_signal", err)
	}
	deadline := time.Now().Add(limit)
	return func() error {
		defer pidfd.Close()
		for {
			left := max(0, time.Until(deadline))
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
			switch {
			case errors.Is(err, unix.EINTR):
			case err == nil && ready == 0:
				return errors.New("its processes do not die")
			default:
				return err
			}
		}
	}, nil
}

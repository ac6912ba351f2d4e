package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo terminal in the container's devpts and returns
// its two ends. rows and cols are set if neither is 0. The slave's owner is
// set with that of all stdio, by ownStdio.
func openTerminal(rows, cols uint16) (master, slave *os.File, err error) {
	// /dev/ptmx may be missing, or belong to another devpts instance.
	fd, err := openPtmx("/dev/pts/ptmx")
	if err != nil {
		fd, err = openPtmx("/dev/ptmx")
	}
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock terminal: %w", err)
	}
	if rows != 0 && cols != 0 {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			return nil, nil, fmt.Errorf("set terminal size: %w", err)
		}
	}
	slaveFD, err := openSlave(fd)
	if err != nil {
		return nil, nil, err
	}
	return master, os.NewFile(uintptr(slaveFD), "/dev/pts"), nil
}

const terminalFlags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC

func openPtmx(path string) (int, error) {
	fd, err := unix.Open(path, terminalFlags, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

func openSlave(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, terminalFlags)
	if errno == 0 {
		return int(fd), nil
	}
	if errno != unix.EINVAL && errno != unix.ENOTTY {
		return -1, fmt.Errorf("open terminal: %w", errno)
	}
	// Linux before 4.13.
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return -1, fmt.Errorf("get terminal number: %w", err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	slave, err := unix.Open(path, terminalFlags, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return slave, nil
}

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The floor is what the kernel needs for the same namespaces: no runtime can
// be faster.

// createFloor starts /bin/true in new namespaces and waits for it.
func (b *bench) createFloor(snapshot string) (func() (float64, error), error) {
	root, err := b.mountImage("busybox", snapshot)
	if err != nil {
		return nil, err
	}
	return func() (float64, error) {
		begin := time.Now()
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot:     root,
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		}
		err := cmd.Run()
		return milliseconds(time.Since(begin)), err
	}, nil
}

// execFloor starts /bin/true in the namespaces of a process and waits for it.
func execFloor(pid int) func() (float64, error) {
	return func() (float64, error) {
		begin, done := time.Now(), make(chan error)
		go func() {
			// The thread cannot leave the namespaces, so it ends with the
			// goroutine.
			goruntime.LockOSThread()
			done <- execIn(pid)
		}()
		err := <-done
		return milliseconds(time.Since(begin)), err
	}
}

func execIn(pid int) error {
	// A thread that shares its root with others cannot change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var spaces []*os.File
	for _, name := range []string{"ipc", "uts", "net", "pid", "cgroup", "mnt"} {
		f, err := os.Open(filepath.Join("/proc", fmt.Sprint(pid), "ns", name))
		if err != nil {
			return err
		}
		defer f.Close()
		spaces = append(spaces, f)
	}
	for _, f := range spaces {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return os.NewSyscallError("setns "+f.Name(), err)
		}
	}
	return (&exec.Cmd{Path: "/bin/true", Args: []string{"true"}, Stdin: devNull, Stdout: devNull, Stderr: devNull}).Run()
}

// devNull is opened here, as a container may have none.
var devNull, _ = os.OpenFile(os.DevNull, os.O_RDWR, 0)

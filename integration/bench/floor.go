package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
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

// execFloor starts /bin/true in the namespaces of a process, outside its
// cgroups, and waits for it.
func execFloor(pid int) func() (float64, error) {
	return inThread(pid, func() error { return inside("/bin/true").Run() })
}

// cgroupFloor starts a program in the namespaces of a process, moves it to the
// cgroups of that, and lets it end. What is to be executed beside a container's
// pid 1 has to go through that before it runs.
func cgroupFloor(pid int) (_ func() (float64, error), err error) {
	dirs, err := cgroupsOf(pid)
	if err != nil {
		return nil, err
	}
	return inThread(pid, func() (err error) {
		cmd := inside("/bin/cat")
		cmd.Stdin = nil
		hold, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if cgroups.IsCgroup2UnifiedMode() {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dirs[0].Fd())}
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if cmd.SysProcAttr == nil {
			for _, dir := range dirs {
				err = errors.Join(err, move(cmd.Process.Pid, dir))
			}
		}
		return errors.Join(err, hold.Close(), cmd.Wait())
	}), nil
}

// cgroupsOf opens the cgroups of a process, in all hierarchies.
func cgroupsOf(pid int) ([]*os.File, error) {
	paths, err := cgroups.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	var dirs []*os.File
	for controller, path := range paths {
		root := "/sys/fs/cgroup"
		if !cgroups.IsCgroup2UnifiedMode() {
			name := strings.TrimPrefix(controller, "name=")
			if controller == "" {
				name = "unified"
			}
			root = filepath.Join(root, name)
		}
		dir, err := os.Open(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// move moves a process to a cgroup, whose path need not be there in the
// namespaces of this thread.
func move(pid int, dir *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open cgroup.procs of "+dir.Name(), err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(strconv.Itoa(pid)))
	return os.NewSyscallError("move to "+dir.Name(), err)
}

// inThread times f in the namespaces of a process.
func inThread(pid int, f func() error) func() (float64, error) {
	return func() (float64, error) {
		begin, done := time.Now(), make(chan error)
		go func() {
			// The thread cannot leave the namespaces, so it ends with the
			// goroutine.
			goruntime.LockOSThread()
			err := enter(pid)
			if err == nil {
				err = f()
			}
			done <- err
		}()
		err := <-done
		return milliseconds(time.Since(begin)), err
	}
}

func enter(pid int) error {
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
	return nil
}

// inside is a program of the container without streams.
func inside(path string) *exec.Cmd {
	return &exec.Cmd{Path: path, Args: []string{filepath.Base(path)}, Stdin: devNull, Stdout: devNull, Stderr: devNull}
}

// devNull is opened here, as a container may have none.
var devNull, _ = os.OpenFile(os.DevNull, os.O_RDWR, 0)

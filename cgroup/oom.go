package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	cgroupmanager "github.com/opencontainers/cgroups/manager"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fscommon"
	"golang.org/x/sys/unix"
)

// OOMWatch reports each time the kernel kills a process of a container for
// lack of memory.
type OOMWatch struct {
	// Stop ends the watch. What has happened by then is reported before it
	// returns, and nothing afterwards.
	Stop func()
}

// WatchOOM watches the cgroup of a process, whose directories are known where
// it has some of version 1.
func WatchOOM(pid int, v1 map[string]string, report func()) (*OOMWatch, error) {
	if Unified() {
		path, err := cgroup2.PidGroupPath(pid)
		if err != nil {
			return nil, fmt.Errorf("find cgroup: %w", err)
		}
		return watchMemoryEvents(filepath.Join("/sys/fs/cgroup", path), report)
	}
	cg, err := cgroupV1(v1)
	if err != nil {
		return nil, err
	}
	fd, err := cg.OOMEventFD()
	if err != nil {
		return nil, err
	}
	return watchEventFD(int(fd), report)
}

// watchEventFD watches a descriptor that the kernel writes to just before it
// kills (Documentation/admin-guide/cgroup-v1/memory.rst, OOM Control).
func watchEventFD(fd int, report func()) (*OOMWatch, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f, done := os.NewFile(uintptr(fd), "oom"), make(chan struct{})
	read := func() error {
		_, err := f.Read(make([]byte, 8))
		if err == nil {
			report()
		}
		return err
	}
	go func() {
		defer close(done)
		for err := read(); err == nil; err = read() {
			continue
		}
	}()
	return &OOMWatch{Stop: func() {
		defer f.Close()
		if f.SetReadDeadline(time.Now()) != nil {
			return
		}
		<-done
		// The deadline counts before what is there to be read.
		conn, err := f.SyscallConn()
		if err != nil {
			return
		}
		_ = conn.Control(func(fd uintptr) {
			if n, err := unix.Read(int(fd), make([]byte, 8)); n > 0 && err == nil {
				report()
			}
		})
	}}, nil
}

// watchMemoryEvents watches the memory.events of a cgroup, whose counters
// include those of the cgroups below (Documentation/admin-guide/cgroup-v2.rst).
func watchMemoryEvents(dir string, report func()) (*OOMWatch, error) {
	const events = "memory.events"
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	f, done := os.NewFile(uintptr(fd), events), make(chan struct{})
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, events), unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "watch", Path: filepath.Join(dir, events), Err: err}
	}
	seen, err := fscommon.GetValueByKey(dir, events, "oom_kill")
	if err != nil {
		f.Close()
		return nil, err
	}
	look := func() error {
		kills, err := fscommon.GetValueByKey(dir, events, "oom_kill")
		if err == nil && kills > seen {
			seen = kills
			report()
		}
		return err
	}
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			if err := look(); err != nil && !errors.Is(err, unix.ENODEV) {
				return
			}
		}
	}()
	return &OOMWatch{Stop: func() {
		defer f.Close()
		if f.SetReadDeadline(time.Now()) != nil {
			return
		}
		<-done
		_ = look() // the cgroup may be gone, and with it all there was to see
	}}, nil
}

// OOMKilled reports whether the kernel has killed processes in the cgroups of a
// container for want of memory.
func OOMKilled(config *cgroups.Cgroup, paths map[string]string) bool {
	m, err := cgroupmanager.NewWithPaths(config, paths)
	if err != nil {
		return false
	}
	n, err := m.OOMKillCount()
	return err == nil && n > 0
}

package containerdtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/integration/daemon"
)

// ownerFile holds the ownerMark of the process that a run belongs to.
const ownerFile = "owner"

// stopGrace is how long containerd may take for an orderly end.
const stopGrace = 10 * time.Second

// Remove ends containerd and everything that is left of the run.
func (d *Daemon) Remove() (err error) {
	d.removeOnce.Do(func() {
		if d.Client != nil {
			d.Client.Close()
		}
		d.Stop(stopGrace)
		err = errors.Join(d.keepLog(), removeRun(d.Group, d.Dir, d.Limit))
	})
	return err
}

// keepLog leaves containerd's log where it can be read after the run.
func (d *Daemon) keepLog() error {
	if d.KeepLog == "" {
		return nil
	}
	content, err := os.ReadFile(d.Log)
	if err != nil {
		return nil // it was not started
	}
	return os.WriteFile(d.KeepLog, content, 0o644)
}

// ownerMark identifies a process also after its pid was given to another one.
func ownerMark(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The fields behind the name, which may hold anything; the start time is field 22 of the whole line.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fmt.Sprintf("%d %s", pid, fields[19])
}

// Sweep removes what processes left of the runs of a group that were killed
// before they could, and tells of each.
func Sweep(group string, limit time.Duration, tell func(dir string)) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), group+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		mark, err := os.ReadFile(filepath.Join(dir, ownerFile))
		if err != nil {
			continue // not ours, or just being made
		}
		pid, _ := strconv.Atoi(strings.Fields(string(mark) + " 0")[0])
		if ownerMark(pid) == string(mark) {
			continue
		}
		tell(dir)
		errs = append(errs, removeRun(group, dir, limit))
	}
	return errors.Join(errs...)
}

// removeRun kills the processes of a run, then removes its mounts, cgroups and
// folder.
func removeRun(group, dir string, limit time.Duration) error {
	err := daemon.Poll(limit, func() error {
		processes, err := Processes(dir)
		if err != nil || len(processes) == 0 {
			return err
		}
		for _, p := range processes {
			_ = syscall.Kill(p.Pid, syscall.SIGKILL) // it may have ended
		}
		return fmt.Errorf("processes are left: %v", processes)
	})
	if err != nil {
		return err
	}
	// Before containerd 2.3 the sockets are in a folder of the whole machine, and only the bundles tell which are whose.
	addresses, err := filepath.Glob(filepath.Join(dir, "state/io.containerd.runtime.v2.task/*/*/address"))
	if err != nil {
		return err
	}
	for _, file := range addresses {
		address, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.Remove(strings.TrimPrefix(string(address), "unix://")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := unmountBelow(dir, limit); err != nil {
		return err
	}
	if err := removeCgroups(group, dir, limit); err != nil {
		return err
	}
	// Again, if the last who wrote into it has just been killed.
	return daemon.Poll(limit, func() error { return os.RemoveAll(dir) })
}

// unmountBelow unmounts everything below dir, and makes sure of it: removing a folder with a mount left in it
// would remove the files of the mount.
func unmountBelow(dir string, limit time.Duration) error {
	return daemon.Poll(limit, func() error {
		mounts, err := Mounts()
		if err != nil {
			return err
		}
		var left []string
		for i := len(mounts) - 1; i >= 0; i-- {
			if point := mounts[i].Point; IsBelow(point, dir) {
				left = append(left, point)
				_ = unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // seen by the next look
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("mounts were left below %s: %s", dir, strings.Join(left, " "))
		}
		return nil
	})
}

// cgroupOf is the parent of the cgroups of a run.
func cgroupOf(group, dir string) string { return "/" + group + "/" + filepath.Base(dir) }

// removeCgroups removes the cgroups of a run, and the parent of all runs when it is the last: another one may be about to make
// its first cgroup there.
func removeCgroups(group, dir string, limit time.Duration) error {
	points, err := CgroupMounts()
	if err != nil {
		return err
	}
	dirs := map[string]string{}
	for _, point := range points {
		dirs[point] = filepath.Join(point, cgroupOf(group, dir))
	}
	err = cgroup.Remove(dirs, limit)
	runs, globErr := filepath.Glob(filepath.Join(filepath.Dir(dir), group+"-*"))
	if err := errors.Join(err, globErr); err != nil || len(runs) > 1 {
		return err
	}
	for _, point := range points {
		_ = os.Remove(filepath.Join(point, group)) // fails while there are others in it, as it should
	}
	return nil
}

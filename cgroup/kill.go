package cgroup

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killPoll is the pause between two rounds of Kill.
	killPoll = 5 * time.Millisecond
	// batch is how many processes are held open at once.
	batch = 64
	// maxNames bounds the names of cgroups that a search for processes keeps.
	// Those that are left out are searched when they are removed.
	maxNames = 1 << 16
)

// Kill sends SIGKILL to every process in a container's cgroups and below, and
// thaws what is frozen. dirs are the cgroups by controller, that of v2 as "".
// It returns when it finds none that has not got the signal; that they have
// ended it does not wait for. After limit it gives up.
//
// No process id is trusted: the kernel kills all of a v2 cgroup at once
// (Documentation/admin-guide/cgroup-v2.rst, cgroup.kill; Linux 5.14), and else
// a process is held by a descriptor while it is looked up again in the cgroup.
func Kill(dirs map[string]string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	sent := map[int]bool{}
	for round := 1; ; round++ {
		before := len(sent)
		if round > 2 {
			// Some are forked as fast as they are killed.
			freeze(dirs)
		}
		var errs []error
		for _, dir := range distinct(dirs) {
			if err := killTree(dir, sent); err != nil {
				errs = append(errs, fmt.Errorf("kill the processes of cgroup %s: %w", dir, err))
			}
		}
		if len(sent) == before {
			return errors.Join(errs...)
		}
		if time.Now().After(deadline) {
			return errors.Join(append(errs, fmt.Errorf("kill the processes of cgroup %s: there were new ones for %v", distinct(dirs)[0], limit))...)
		}
		if round > 1 {
			time.Sleep(killPoll)
		}
	}
}

// distinct returns each directory once, that of v2 first: what kills there at
// once leaves nothing to search for elsewhere.
func distinct(dirs map[string]string) []string {
	var out []string
	for _, controller := range slices.Sorted(maps.Keys(dirs)) {
		if dir := dirs[controller]; dir != "" && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// killTree kills what is in a cgroup and below, and adds to sent whom it has
// sent the signal itself.
func killTree(dir string, sent map[int]bool) error {
	c, err := open(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	err = write(c.fd, "cgroup.kill", "1")
	// On v1 and before Linux 5.14 there is no such file, and a cgroup that the
	// container has made a threaded one does not support it.
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	var errs []error
	if err := c.visit(func(fd int) {
		err := killMembers(fd, sent)
		// A process that is frozen on v1 dies when it is thawed
		// (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
		if thaw := write(fd, "freezer.state", "THAWED"); !errors.Is(thaw, unix.ENOENT) {
			err = errors.Join(err, thaw)
		}
		if err != nil && len(errs) < batch {
			errs = append(errs, fmt.Errorf("%s: %w", c.where(), err))
		}
	}); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", c.where(), err))
	}
	return errors.Join(errs...)
}

// freeze freezes a container on v1, as far as it can be frozen.
func freeze(dirs map[string]string) {
	c, err := open(dirs["freezer"])
	if err != nil {
		return
	}
	defer c.close()
	_ = write(c.fd, "freezer.state", "FROZEN")
}

// visit calls do with the directory where the cursor is and with those below.
func (c *cursor) visit(do func(fd int)) error {
	kept := 0
	names := func() (list []string, err error) {
		for {
			name, err := c.next()
			if err != nil || name == "" {
				return list, err
			}
			if kept++; kept > maxNames {
				return nil, fmt.Errorf("more than %d cgroups", maxNames)
			}
			list = append(list, name)
		}
	}
	do(c.fd)
	first, err := names()
	if err != nil {
		return err
	}
	// left are those still to be visited at each level.
	for left := [][]string{first}; ; {
		last := len(left) - 1
		n := len(left[last])
		if n == 0 {
			if left = left[:last]; last == 0 {
				return nil
			}
			if _, err := c.up(); err != nil {
				return err
			}
			continue
		}
		name := left[last][n-1]
		left[last] = left[last][:n-1]
		kept--
		if err := c.down(name); errors.Is(err, unix.ENOENT) {
			continue
		} else if err != nil {
			return err
		}
		do(c.fd)
		below, err := names()
		if err != nil {
			return err
		}
		left = append(left, below)
	}
}

// killMembers kills the processes of one cgroup. Between the list of them and
// the signal a process may end, and its number may become that of another one
// anywhere. So each is held by a descriptor first, and only then counts that
// the number is on the list.
func killMembers(fd int, sent map[int]bool) error {
	ids, flags, err := members(fd)
	if err != nil {
		return err
	}
	var errs []error
	for some := range slices.Chunk(ids, batch) {
		held := map[int]int{}
		for _, id := range some {
			switch pidfd, err := unix.PidfdOpen(id, flags); {
			case err == nil:
				held[id] = pidfd
			case !errors.Is(err, unix.ESRCH):
				errs = append(errs, fmt.Errorf("process %d: %w", id, err))
			}
		}
		still, _, err := members(fd)
		if err != nil {
			errs = append(errs, err)
		}
		for id, pidfd := range held {
			if slices.Contains(still, id) {
				if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err == nil {
					sent[id] = true
				} else if !errors.Is(err, unix.ESRCH) {
					errs = append(errs, fmt.Errorf("process %d: %w", id, err))
				}
			}
			unix.Close(pidfd)
		}
	}
	return errors.Join(errs...)
}

// members lists the processes of one cgroup, and with which flags their
// descriptors are opened. Of a threaded cgroup the kernel lists only threads
// (Documentation/admin-guide/cgroup-v2.rst, Threads): the descriptor of one
// (Linux 6.9) stands for its process as well, as SIGKILL is for all of it.
func members(fd int) (ids []int, flags int, err error) {
	list, err := read(fd, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		flags = unix.PIDFD_THREAD
		list, err = read(fd, "cgroup.threads")
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, 0, nil // the cgroup is gone
	}
	if err != nil {
		return nil, 0, err
	}
	for _, field := range strings.Fields(list) {
		// 0 is one of a pid namespace that this process does not see into.
		if id, err := strconv.Atoi(field); err == nil && id > 0 {
			ids = append(ids, id)
		}
	}
	return ids, flags, nil
}

// open opens a cgroup. It refuses the top of a hierarchy, where the processes
// of the whole host are, and what is no cgroup.
func open(dir string) (*cursor, error) {
	c, err := openCursor(dir)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	var above unix.Stat_t
	err = errors.Join(unix.Fstatfs(c.fd, &fs), unix.Fstatat(c.fd, "..", &above, 0))
	switch {
	case err != nil:
	case fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC:
		err = errors.New("it is no cgroup")
	case above.Dev != c.dev:
		err = errors.New("it is the top of a hierarchy")
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func read(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

func write(dir int, name, value string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

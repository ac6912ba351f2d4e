package cgroup

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The pauses before another try to remove a cgroup with processes in it.
const (
	minPause = time.Millisecond
	maxPause = 16 * time.Millisecond
)

// Remove removes a container's cgroups and all below, and kills what is still
// in them. dirs are the cgroups by controller. Those that are gone are no
// error. After limit it gives up, and another call goes on from there.
func Remove(dirs map[string]string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	var errs []error
	for _, dir := range distinct(dirs) {
		// Mostly there is nothing below it.
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err := removeTree(dir, deadline); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string, deadline time.Time) error {
	c, err := open(dir)
	if err != nil {
		return err
	}
	defer c.close()
	r := remover{cursor: c, deadline: deadline}
	for {
		if err := r.clear(); err != nil {
			return fmt.Errorf("%s: %w", c.where(), err)
		}
		switch err := unix.Rmdir(dir); {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		if err := r.busy(); err != nil {
			return err
		}
		if err := c.rewind(); err != nil {
			return err
		}
	}
}

// remover removes a tree of directories.
type remover struct {
	*cursor
	deadline time.Time
	pause    time.Duration // before the next try
}

// clear removes what is below the directory where the cursor is.
func (r *remover) clear() error {
	top := len(r.above)
	for {
		if time.Now().After(r.deadline) {
			return errTime
		}
		name, err := r.next()
		switch {
		case err != nil:
			return err
		case name != "":
			gone, err := r.rmdir(name)
			if err != nil {
				return err
			}
			if !gone {
				if err := r.down(name); err != nil && !errors.Is(err, unix.ENOENT) {
					return err
				}
			}
		case len(r.above) == top:
			return nil
		default:
			if err := r.leave(); err != nil {
				return err
			}
		}
	}
}

// leave goes up and removes the directory that is left. If that fails, the
// directory above will be read again from its beginning.
func (r *remover) leave() error {
	if err := killMembers(r.fd, map[int]bool{}); err != nil {
		return err
	}
	name, err := r.up()
	if err != nil {
		return err
	}
	gone, err := r.rmdir(name)
	if err != nil || gone {
		return err
	}
	return r.wait()
}

// busy is called when a directory with nothing below cannot be removed.
func (r *remover) busy() error {
	if err := killMembers(r.fd, map[int]bool{}); err != nil {
		return err
	}
	return r.wait()
}

// wait pauses, as processes that have been killed need a moment to be gone.
func (r *remover) wait() error {
	if time.Now().After(r.deadline) {
		return errTime
	}
	r.pause = min(max(2*r.pause, minPause), maxPause)
	time.Sleep(r.pause)
	return nil
}

var errTime = errors.New("it could not be emptied in time")

// rmdir removes a directory in this one. It returns false if there is
// something in it.
func (r *remover) rmdir(name string) (gone bool, err error) {
	switch err := unix.Unlinkat(r.fd, name, unix.AT_REMOVEDIR); {
	case err == nil, errors.Is(err, unix.ENOENT):
		r.pause = 0
		return true, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
		return false, nil
	default:
		return false, fmt.Errorf("rmdir %.64q: %w", name, err)
	}
}

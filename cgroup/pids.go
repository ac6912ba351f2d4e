package cgroup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Pids lists the processes in a cgroup and below, none if it is gone.
func Pids(dir string) ([]int, error) {
	c, err := open(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", dir, err)
	}
	defer c.close()
	var pids []int
	var errs []error
	if err := c.visit(func(fd int) {
		some, _, err := members(fd)
		if err != nil && len(errs) < batch {
			errs = append(errs, err)
		}
		pids = append(pids, some...)
	}); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", c.where(), err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", dir, err)
	}
	return pids, nil
}

package cgroup

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// What a container may make below its cgroup on v2. An init makes one for
// each unit and session, a container engine or a Kubernetes node in the
// container a few for each container and pod: some thousands at most, and less
// than ten levels, twice that where one of those runs another. What is made
// costs the host memory, and Delete about a second for all.
const (
	MaxDepth       = 32
	MaxDescendants = 8192
)

// Limit bounds how many cgroups can be made below one of v2, and how deep. The
// kernel checks the limits of all above a new cgroup. Where it has none (Linux
// before 4.14), or there is none of v2, nothing is done.
func Limit(dirs map[string]string) error {
	dir := dirs[""]
	if dir == "" {
		return nil
	}
	c, err := open(dir)
	if err != nil {
		return fmt.Errorf("limit the cgroups below %s: %w", dir, err)
	}
	defer c.close()
	for _, limit := range []struct {
		file string
		max  int
	}{{"cgroup.max.depth", MaxDepth}, {"cgroup.max.descendants", MaxDescendants}} {
		if err := write(c.fd, limit.file, strconv.Itoa(limit.max)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s/%s: %w", dir, limit.file, err)
		}
	}
	return nil
}

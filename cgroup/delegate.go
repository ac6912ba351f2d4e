package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
)

// delegateFile lists the files of a cgroup that its new owner may write
// (cgroups(7), Cgroups v2 delegation).
const delegateFile = "/sys/kernel/cgroup/delegate"

// Delegate gives the container's cgroup in the v2 hierarchy to the root of
// its user namespace, whose init makes cgroups of its own below. The limits,
// which other files hold, stay out of its reach.
func Delegate(pid, uid, gid int) error {
	paths, err := cgroups.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	own, ok := paths[""]
	if !ok {
		return fmt.Errorf("process %d: in no cgroup of the v2 hierarchy", pid)
	}
	mount := "/sys/fs/cgroup"
	if !Unified() {
		mount = filepath.Join(mount, "unified")
	}
	dir, err := os.OpenRoot(filepath.Join(mount, own))
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := delegated()
	if err != nil {
		return err
	}
	for _, name := range append(names, ".") {
		// Not every controller is enabled in every cgroup.
		if err := dir.Chown(name, uid, gid); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func delegated() ([]string, error) {
	f, err := os.Open(delegateFile)
	if errors.Is(err, os.ErrNotExist) { // Linux before 4.15
		return []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return names, lines.Err()
		}
		if name := lines.Text(); strings.HasPrefix(name, "cgroup.") {
			names = append(names, name)
		}
	}
}

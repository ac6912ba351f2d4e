package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
)

// MissingMountPoints lists the mount points of a plan that the root file system lacks,
// with their missing parents, outermost first. libcontainer makes them, and
// they are removed at the end. Nothing is listed that lies in another mount.
func MissingMountPoints(rootfs string, plan *initmode.Plan) ([]string, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []string
	for _, m := range plan.Mounts {
		if inMount(m.Resolved, plan) {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(m.Resolved, "/"), "/")
		for i := range parts {
			p := filepath.Join(parts[:i+1]...)
			if _, err := root.Lstat(p); errors.Is(err, os.ErrNotExist) && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// inMount reports whether a path lies below a mount of the container, other
// than one at /.
func inMount(path string, plan *initmode.Plan) bool {
	in := func(dir string) bool { return dir != "/" && initmode.Below(path, dir) }
	return slices.ContainsFunc(plan.Destinations, in) ||
		slices.ContainsFunc(plan.Mounts, func(m initmode.Mount) bool { return in(m.Resolved) })
}

// RemoveMountPoints removes what was made for mounts, unless something uses
// it: a file only if it is empty, a directory only if it is.
func RemoveMountPoints(m Made) error {
	if len(m.MountPoints) == 0 {
		return nil
	}
	root, err := os.OpenRoot(m.Rootfs)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	for i := len(m.MountPoints) - 1; i >= 0; i-- {
		p := m.MountPoints[i]
		info, err := root.Lstat(p)
		if err != nil || (info.Mode().IsRegular() && info.Size() != 0) || !info.Mode().IsRegular() && !info.IsDir() {
			continue
		}
		err = root.Remove(p)
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

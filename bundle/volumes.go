package bundle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
)

// VolumePoints are files and directories that are made in a volume of the
// user's, for mounts of ours, and removed at the end.
type VolumePoints struct {
	// Source is the volume's directory on the host, and Dev and Ino tell it
	// from another one that has its path later.
	Source string `json:"source"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	// Paths were not there before, outermost first.
	Paths []string `json:"paths"`
}

// MissingInVolumes is missing for mounts that lie in volumes. What a link of a
// volume leads to is not looked at.
func MissingInVolumes(plan *initmode.Plan) ([]VolumePoints, error) {
	var out []VolumePoints
	for _, point := range plan.MountPoints {
		found, err := missingIn(point.Volume, point.Path)
		if err != nil {
			return nil, fmt.Errorf("mount point %s in the volume %s: %w", point.Path, point.Volume, err)
		}
		i := slices.IndexFunc(out, func(v VolumePoints) bool { return v.Source == found.Source })
		switch {
		case len(found.Paths) == 0:
		case i < 0:
			out = append(out, found)
		default:
			for _, name := range found.Paths {
				if !slices.Contains(out[i].Paths, name) {
					out[i].Paths = append(out[i].Paths, name)
				}
			}
		}
	}
	return out, nil
}

func missingIn(volume, name string) (v VolumePoints, err error) {
	dir, err := hostfs.Open(volume)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return v, nil // who mounts it says so
	}
	if err != nil {
		return v, err
	}
	defer dir.Close()
	stat, err := dir.Stat()
	if err != nil {
		return v, err
	}
	v = VolumePoints{Source: volume, Dev: stat.Dev, Ino: stat.Ino}
	parts := strings.Split(name, "/")
	for i := range parts {
		at := path.Join(parts[:i+1]...)
		stat, err := dir.Lstat(at)
		switch {
		case errors.Is(err, os.ErrNotExist):
			for ; i < len(parts); i++ {
				v.Paths = append(v.Paths, path.Join(parts[:i+1]...))
			}
			return v, nil
		case err != nil:
			return v, err
		case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
			return v, nil
		}
	}
	return v, nil
}

// RemoveVolumePoints removes what was made for mounts in volumes, unless
// something uses it.
func RemoveVolumePoints(volumes []VolumePoints) error {
	var errs []error
	for _, v := range volumes {
		if err := v.remove(); err != nil {
			errs = append(errs, fmt.Errorf("mount points in the volume %s: %w", v.Source, err))
		}
	}
	return errors.Join(errs...)
}

func (v VolumePoints) remove() error {
	dir, err := hostfs.Open(v.Source)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // it went before the container
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if stat, err := dir.Stat(); err != nil || stat.Dev != v.Dev || stat.Ino != v.Ino {
		return err
	}
	var errs []error
	for _, name := range slices.Backward(v.Paths) {
		stat, err := dir.Lstat(name)
		kind := stat.Mode & unix.S_IFMT
		if err != nil || kind != unix.S_IFDIR && (kind != unix.S_IFREG || stat.Size != 0) {
			continue
		}
		err = dir.Remove(name)
		if err != nil && !slices.ContainsFunc([]error{unix.ENOTEMPTY, unix.EROFS, unix.EBUSY, unix.ENOENT}, func(harmless error) bool {
			return errors.Is(err, harmless)
		}) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package hostfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Limits bound a tmpfs (tmpfs(5)).
type Limits struct {
	Bytes  int64 // rounded up to a page
	Inodes int64 // with that of its top directory
}

// MountTmpfs mounts a tmpfs at a directory, which nobody finds what others
// mount in, and opens it. flags are those of mount(2).
func (d *Dir) MountTmpfs(name string, l Limits, flags uintptr) (*Dir, error) {
	at, err := d.Sub(name)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	page := int64(os.Getpagesize())
	// size=0 would mean no limit.
	options := fmt.Sprintf("mode=0755,size=%d,nr_inodes=%d", max(1, (l.Bytes+page-1)/page)*page, max(1, l.Inodes))
	if err := unix.Mount("tmpfs", at.Path(), "tmpfs", flags, options); err != nil {
		return nil, d.fail("mount a tmpfs at", name, err)
	}
	mounted, err := d.Sub(name)
	if err == nil {
		err = d.fail("mount", name, unix.Mount("", mounted.Path(), "", unix.MS_PRIVATE, ""))
	}
	if err != nil {
		return nil, errors.Join(err, d.Unmount(name))
	}
	return mounted, nil
}

// SetReadOnly makes the file system read-only that d is the top of, with these
// flags of mount(2).
func (d *Dir) SetReadOnly(flags uintptr) error {
	return d.fail("remount", "", unix.Mount("", d.Path(), "", unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""))
}

// Unmount detaches all that is mounted at a name. It is no error if nothing
// is, or the name is missing.
func (d *Dir) Unmount(name string) error {
	for {
		err := d.in("unmount", name, func(fd int, base string) error {
			return unix.Unmount(fmt.Sprintf("/proc/self/fd/%d/%s", fd, base), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		})
		switch {
		case err == nil: // there may be another one below it
		case errors.Is(err, unix.EINVAL), errors.Is(err, os.ErrNotExist):
			return nil
		default:
			return err
		}
	}
}

package initmode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// maxCopied bounds how many files of the image are copied into a tmpfs.
const maxCopied = 4096

var errNotCopyable = errors.New("not copyable")

// copyable reports whether the image's files below dir can be copied up into
// a tmpfs of the container (images make directories such as
// /run/mysqld at build time). Sockets and fifos cannot be, and too many or
// too large files must not be: then the tmpfs hides them, as the one of a
// machine does.
func (r *Rootfs) copyable(dir string, limit int64) (bool, error) {
	resolved, err := r.Resolve(dir)
	if err != nil {
		return false, fmt.Errorf("%s of the root file system: %w; make it a directory", dir, err)
	}
	sub, err := r.root.OpenRoot(inside(resolved))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%s of the root file system: %w", dir, err)
	}
	defer sub.Close()
	files, size := 0, int64(0)
	err = fs.WalkDir(sub.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files++
		size += info.Size()
		switch info.Mode().Type() {
		case 0, fs.ModeDir, fs.ModeSymlink:
		default:
			return errNotCopyable
		}
		if files > maxCopied || size > limit {
			return errNotCopyable
		}
		return nil
	})
	if errors.Is(err, errNotCopyable) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s of the root file system: %w", dir, err)
	}
	return files > 0, nil
}

package initmode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

const (
	// maxCopied bounds how many files of the image are copied into a tmpfs.
	maxCopied = 4096
	// maxCopiedDepth bounds how deep they lie in it.
	maxCopiedDepth = 32
)

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
	w := copyWalk{rootfs: r, sub: sub, left: limit}
	err = w.dir(".", 0)
	files := w.files
	if errors.Is(err, errNotCopyable) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s of the root file system: %w", dir, err)
	}
	return files > 0, nil
}

// copyWalk looks at what is below a directory that is to be copied.
type copyWalk struct {
	rootfs *Rootfs
	sub    *os.Root
	files  int
	left   int64 // bytes that may still be found
}

func (w *copyWalk) dir(name string, depth int) error {
	if depth > maxCopiedDepth {
		return errNotCopyable
	}
	f, err := w.sub.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		// In parts: a directory may have any number of entries.
		names, err := f.Readdirnames(256)
		for _, n := range names {
			if err := w.entry(path.Join(name, n), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *copyWalk) entry(name string, depth int) error {
	if err := w.rootfs.left.step(depth + 1); err != nil {
		return err
	}
	info, err := w.sub.Lstat(name)
	if err != nil {
		return err
	}
	w.files++
	w.left -= info.Size()
	if w.files > maxCopied || w.left < 0 {
		return errNotCopyable
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return w.dir(name, depth+1)
	case 0, fs.ModeSymlink:
		return nil
	}
	return errNotCopyable
}

package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Programs that containers get from the host.
const (
	launcherProgram = "rich-launch"
	dumbInitProgram = "dumb-init"
)

// programDir finds where the programs for containers are installed: beside
// the shim, or where `make install` puts them.
func programDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Dir(self)
	installed := filepath.Join(beside, "..", "libexec", "containerd-shim-rich")
	for _, dir := range []string{beside, installed} {
		if _, err := os.Stat(filepath.Join(dir, launcherProgram)); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%s is neither in %s nor in %s; install it with the shim (make install)", launcherProgram, beside, installed)
}

// exposePrograms makes the programs visible at target in a way that not even
// a container with all capabilities can write to: an overlay without an
// upper directory has no writable form, whatever is remounted. Where the
// kernel refuses one (its layers may be overlays already), the container
// gets copies.
func exposePrograms(target string) error {
	dir, err := programDir()
	if err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o711); err != nil {
		return err
	}
	if exposeReadOnly(dir, target) == nil {
		return nil
	}
	var errs []error
	for _, name := range []string{launcherProgram, dumbInitProgram} {
		errs = append(errs, copyProgram(filepath.Join(dir, name), filepath.Join(target, name)))
	}
	return errors.Join(errs...)
}

// exposeReadOnly makes a directory visible at target, an empty one, by an
// overlay that cannot be written to.
func exposeReadOnly(dir, target string) error {
	lower, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lower.Close()
	// An overlay wants two layers at least; the second is the empty target.
	empty, err := os.Open(target)
	if err != nil {
		return err
	}
	defer empty.Close()
	// By descriptor: a path may hold the option's separators.
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d:/proc/self/fd/%d", lower.Fd(), empty.Fd())
	return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, options)
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil // whoever needs it will say so
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// checkProgram says clearly that a program for the container is missing.
func checkProgram(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s is not installed beside %s: %w", filepath.Base(path), launcherProgram, err)
	}
	return nil
}

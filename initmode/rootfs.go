package initmode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxLinks is the kernel's own limit for one path walk (path_resolution(7)).
	maxLinks = 40
	// maxInit bounds how much of a supposed init is looked through, in bytes.
	maxInit = 64 << 20
)

// errEscape says that a link climbs above the root file system.
var errEscape = errors.New("leaves the root file system")

// Rootfs reads a container's root file system from the host without ever
// following one of its links on the host.
// What it looks at is bounded.
type Rootfs struct {
	root *os.Root
	left budget
}

// OpenRootfs opens the directory dir. The caller closes the result.
func OpenRootfs(dir string) (*Rootfs, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Rootfs{root: root, left: newBudget()}, nil
}

// Close releases the directory.
func (r *Rootfs) Close() error { return r.root.Close() }

// Resolve follows the links of name as a process would whose root is the
// root file system, and returns an absolute path without links. What does
// not exist is appended as it is. A relative link that climbs above the root
// is an error: no sane image has one, and it is how a link is aimed at the
// host.
func (r *Rootfs) Resolve(name string) (string, error) {
	return r.resolve("/", strings.Split(path.Clean("/"+name), "/"), name)
}

// resolve is Resolve from a directory that has been resolved before. name is
// for messages.
func (r *Rootfs) resolve(at string, rest []string, name string) (string, error) {
	links := 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "/" {
				return "", fmt.Errorf("%s: %w", name, errEscape)
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := r.lstat(next)
		if errors.Is(err, errTooMuch) {
			return "", err
		}
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, unix.ELOOP)
		}
		target, err := r.root.Readlink(inside(next))
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// inside turns an absolute path of the container into a name for os.Root.
func inside(name string) string {
	if name == "/" {
		return "."
	}
	return strings.TrimPrefix(name, "/")
}

// lstat is lstat(2) of a path without links.
func (r *Rootfs) lstat(name string) (fs.FileInfo, error) {
	// Each part is opened on the way.
	if err := r.left.step(strings.Count(name, "/")); err != nil {
		return nil, err
	}
	return r.root.Lstat(inside(name))
}

// Exists reports whether the resolved path of name exists.
func (r *Rootfs) Exists(name string) bool {
	resolved, err := r.Resolve(name)
	if err != nil {
		return false
	}
	_, err = r.lstat(resolved)
	return err == nil
}

// IsDir reports whether name is a directory itself, not a link to one.
func (r *Rootfs) IsDir(name string) bool {
	info, err := r.lstat(path.Clean("/" + name))
	return err == nil && info.IsDir()
}

// executable returns the resolved path of name if it is a regular file with
// an executable bit.
func (r *Rootfs) executable(name string) (string, error) {
	resolved, err := r.Resolve(name)
	if err != nil {
		return "", err
	}
	info, err := r.lstat(resolved)
	switch {
	case errors.Is(err, errTooMuch):
		return "", err
	case err != nil && resolved != path.Clean(name):
		return "", fmt.Errorf("%s: links to %s, which the root file system does not have", name, resolved)
	case err != nil:
		return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a regular file", resolved)
	case info.Mode().Perm()&0o111 == 0:
		return "", fmt.Errorf("%s: not executable", resolved)
	}
	return resolved, nil
}

// read returns at most limit bytes of the regular file at a resolved path.
func (r *Rootfs) read(resolved string, limit int64) ([]byte, error) {
	f, size, err := r.open(resolved)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit = min(limit, size)
	if err := r.left.read(limit); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// lookPath finds a program as execvp(3) does in a container that has just
// been started in cwd, and returns its resolved path.
func (r *Rootfs) lookPath(program, cwd string, env []string) (string, error) {
	if strings.Contains(program, "/") {
		if !path.IsAbs(program) {
			program = path.Join("/", cwd, program)
		}
		return r.executable(program)
	}
	// The last duplicate counts, as for the process itself.
	search := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for dir := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(dir) {
			dir = path.Join("/", cwd, dir)
		}
		if resolved, err := r.executable(path.Join(dir, program)); err == nil {
			return resolved, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, fs.ErrNotExist)
}

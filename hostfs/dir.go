// Package hostfs is the one way in which files of ours are made, changed and
// removed on the host: through the descriptor of a directory, by names below
// it of which no component is followed if it is a link, and without ever
// taking over what is there already. What a name leads to may have been put
// there by a container.
package hostfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Names given to its methods are relative, have
// components separated by slashes, and neither ".", ".." nor empty ones. A
// component that is a link is an error which wraps unix.ENOTDIR or unix.ELOOP.
type Dir struct {
	f *os.File // opened with O_PATH
}

// walkFlags open a directory only to go on from there.
const walkFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// Open opens a directory. The path is the engine's or the administrator's, and
// links in it are theirs: they are followed.
func Open(dir string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, dir, walkFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Dir{os.NewFile(uintptr(fd), dir)}, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.f.Close() }

// Path is a path by which the kernel finds this very directory, whatever has
// been renamed, as long as d is open.
func (d *Dir) Path() string { return fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()) }

// fail is an error about a name in the directory; nil if err is.
func (d *Dir) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path.Join(d.f.Name(), name), Err: err}
}

// errName is wrapped by the errors about a name that is none.
var errName = errors.New("not a name below a directory")

// components splits a name.
func components(name string) ([]string, error) {
	if name == "." || !fs.ValidPath(name) || !filepath.IsLocal(name) || strings.IndexByte(name, 0) >= 0 {
		return nil, errName
	}
	return strings.Split(name, "/"), nil
}

// in calls do with the directory that the last component of a name is in.
func (d *Dir) in(op, name string, do func(fd int, base string) error) error {
	parts, err := components(name)
	if err != nil {
		return d.fail(op, name, err)
	}
	last := len(parts) - 1
	fd, err := walk(int(d.f.Fd()), parts[:last])
	if err == nil {
		err = do(fd, parts[last])
		if fd != int(d.f.Fd()) {
			unix.Close(fd)
		}
	}
	runtime.KeepAlive(d)
	return d.fail(op, name, err)
}

// walk opens the directory that the components lead to, from the directory
// from, which is what it returns if there are none.
func walk(from int, parts []string) (int, error) {
	at := from
	for _, part := range parts {
		next, err := openat(at, part, walkFlags|unix.O_NOFOLLOW, 0)
		if at != from {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Sub opens a directory below.
func (d *Dir) Sub(name string) (*Dir, error) {
	var sub *Dir
	err := d.in("open", name, func(fd int, base string) error {
		got, err := openat(fd, base, walkFlags|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		sub = &Dir{os.NewFile(uintptr(got), path.Join(d.f.Name(), name))}
		return nil
	})
	return sub, err
}

// Mkdir makes a directory with exactly this mode. One that is there is an
// error that wraps os.ErrExist.
func (d *Dir) Mkdir(name string, mode fs.FileMode) error {
	return d.in("mkdir", name, func(fd int, base string) error { return mkdirat(fd, base, mode) })
}

func mkdirat(fd int, base string, mode fs.FileMode) error {
	if err := unix.Mkdirat(fd, base, uint32(mode.Perm())); err != nil {
		return err
	}
	// The umask of the engine may be anything.
	made, err := openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	return unix.Fchmod(made, uint32(mode.Perm()))
}

// MkdirAll makes a directory and those above it that are missing.
func (d *Dir) MkdirAll(name string, mode fs.FileMode) error {
	parts, err := components(name)
	for i := range parts {
		err = d.Mkdir(path.Join(parts[:i+1]...), mode)
		if errors.Is(err, os.ErrExist) {
			err = nil // whether it is a directory tells who uses it
		}
		if err != nil {
			return err
		}
	}
	return d.fail("mkdir", name, err)
}

// Create makes a file with exactly this mode, and opens it for reading and
// writing. One that is there is an error that wraps os.ErrExist.
func (d *Dir) Create(name string, mode fs.FileMode) (*os.File, error) {
	var file *os.File
	err := d.in("create", name, func(fd int, base string) (err error) {
		file, err = create(fd, base, mode)
		return err
	})
	return file, err
}

func create(fd int, base string, mode fs.FileMode) (*os.File, error) {
	made, err := openat(fd, base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(made), base)
	if err := unix.Fchmod(made, uint32(mode.Perm())); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// WriteFile makes a file. One that is there is an error that wraps
// os.ErrExist.
func (d *Dir) WriteFile(name string, data []byte, mode fs.FileMode) error {
	return d.in("write", name, func(fd int, base string) error { return write(fd, base, data, mode) })
}

func write(fd int, base string, data []byte, mode fs.FileMode) error {
	file, err := create(fd, base, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// Replace writes a file so that a reader sees either all of it or what was
// there before, whose place it takes, be it a link.
func (d *Dir) Replace(name string, data []byte, mode fs.FileMode) error {
	return d.in("write", name, func(fd int, base string) error {
		temporary, err := writeTemporary(fd, base, data, mode)
		if err != nil {
			return err
		}
		if err := unix.Renameat(fd, temporary, fd, base); err != nil {
			return errors.Join(err, unix.Unlinkat(fd, temporary, 0))
		}
		return nil
	})
}

// Symlink makes a link that holds target.
func (d *Dir) Symlink(target, name string) error {
	return d.in("symlink", name, func(fd int, base string) error { return unix.Symlinkat(target, fd, base) })
}

// Link gives a file of the directory another name in it.
func (d *Dir) Link(name, other string) error {
	if _, err := components(other); err != nil || strings.Contains(name+other, "/") {
		return d.fail("link", other, errName)
	}
	return d.in("link", name, func(fd int, base string) error { return unix.Linkat(fd, base, fd, other, 0) })
}

// Rename gives a file of the directory another name in it, in place of what
// has that.
func (d *Dir) Rename(name, other string) error {
	if _, err := components(other); err != nil || strings.Contains(name+other, "/") {
		return d.fail("rename", other, errName)
	}
	return d.in("rename", name, func(fd int, base string) error { return unix.Renameat(fd, base, fd, other) })
}

// Chown changes the owner of what has the name itself, be it a link.
func (d *Dir) Chown(name string, uid, gid int) error {
	return d.in("chown", name, func(fd int, base string) error {
		return unix.Fchownat(fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// ChownSocket gives a socket to a user, and nobody else may connect.
func (d *Dir) ChownSocket(name string, uid, gid int) error {
	return d.in("chown", name, func(fd int, base string) error {
		socket, err := openat(fd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		var stat unix.Stat_t
		if err := unix.Fstat(socket, &stat); err != nil {
			return err
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
			return unix.ENOTSOCK
		}
		// fchmod(2) does not take a descriptor opened with O_PATH; this leads
		// to what it is, and nowhere else (proc_pid_fd(5)).
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", socket), 0o600); err != nil {
			return err
		}
		return unix.Fchownat(socket, "", uid, gid, unix.AT_EMPTY_PATH)
	})
}

// ReadFile reads a regular file of at most limit bytes.
func (d *Dir) ReadFile(name string, limit int64) (data []byte, err error) {
	err = d.in("read", name, func(fd int, base string) error {
		// O_NONBLOCK: opening a fifo must not wait for a writer.
		got, err := openat(fd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(got), name)
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New("not a regular file")
		}
		if data, err = io.ReadAll(io.LimitReader(file, limit+1)); err != nil {
			return err
		}
		if int64(len(data)) > limit {
			data = nil
			return fmt.Errorf("larger than %d bytes", limit)
		}
		return nil
	})
	return data, err
}

// Stat describes the directory itself.
func (d *Dir) Stat() (stat unix.Stat_t, err error) {
	err = d.fail("stat", "", unix.Fstat(int(d.f.Fd()), &stat))
	return stat, err
}

// Lstat describes what has the name itself.
func (d *Dir) Lstat(name string) (stat unix.Stat_t, err error) {
	err = d.in("lstat", name, func(fd int, base string) error {
		return unix.Fstatat(fd, base, &stat, unix.AT_SYMLINK_NOFOLLOW)
	})
	return stat, err
}

// Remove removes a file, a link or an empty directory.
func (d *Dir) Remove(name string) error {
	return d.in("remove", name, func(fd int, base string) error {
		err := unix.Unlinkat(fd, base, 0)
		if err == unix.EISDIR {
			err = unix.Unlinkat(fd, base, unix.AT_REMOVEDIR)
		}
		return err
	})
}

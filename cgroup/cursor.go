package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openDir opens a directory below another one, and no link or mount there.
const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// cursor is a place in a tree of directories. However deep that is, it has no
// more than two descriptors open.
type cursor struct {
	fd  int
	dev uint64
	// above are the directories on the way here, outermost first.
	above []place
	buf   []byte
	// unread are the entries in buf that next has not looked at.
	unread []byte
}

type place struct {
	inode uint64
	// name is that of the next one on the way.
	name string
}

// readSize is how much of a directory is read at once, in bytes. It bounds how
// much of one that the container has filled is in memory.
const readSize = 8 << 10

// openCursor opens the top of a tree.
func openCursor(dir string) (*cursor, error) {
	fd, err := unix.Open(dir, openDir, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return &cursor{fd: fd, dev: st.Dev, buf: make([]byte, readSize)}, nil
}

func (c *cursor) close() { unix.Close(c.fd) }

// next returns the name of a directory in this one that it has not returned
// since the cursor came here, "" if there is none. What is made meanwhile may
// be left out.
func (c *cursor) next() (string, error) {
	for {
		for len(c.unread) > 0 {
			// linux_dirent64, getdents(2): inode 8 bytes, offset 8 bytes,
			// length of the entry 2 bytes, type 1 byte, name up to a zero.
			const head = 19
			size := int(binary.NativeEndian.Uint16(c.unread[16:]))
			kind, name := c.unread[head-1], c.unread[head:size]
			c.unread = c.unread[size:]
			name = name[:bytes.IndexByte(name, 0)]
			if kind == unix.DT_DIR && string(name) != "." && string(name) != ".." {
				return string(name), nil
			}
		}
		n, err := unix.Getdents(c.fd, c.buf)
		if errors.Is(err, unix.ENOENT) {
			return "", nil // it has been removed
		}
		if err != nil || n == 0 {
			return "", err
		}
		c.unread = c.buf[:n]
	}
}

// rewind makes next begin anew.
func (c *cursor) rewind() error {
	c.unread = nil
	_, err := unix.Seek(c.fd, 0, unix.SEEK_SET)
	return err
}

// down goes to a directory in this one.
func (c *cursor) down(name string) error {
	here, err := inode(c.fd, c.dev)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(c.fd, name, openDir, 0)
	if err != nil {
		return err
	}
	if _, err := inode(fd, c.dev); err != nil {
		unix.Close(fd)
		return err
	}
	c.above = append(c.above, place{here, name})
	c.move(fd)
	return nil
}

// up goes back, and returns the name of the directory that it leaves.
func (c *cursor) up() (string, error) {
	last := c.above[len(c.above)-1]
	fd, err := unix.Openat(c.fd, "..", openDir, 0)
	if err != nil {
		return "", err
	}
	switch here, err := inode(fd, c.dev); {
	case err != nil:
		unix.Close(fd)
		return "", err
	case here != last.inode:
		unix.Close(fd)
		return "", errors.New("it was moved meanwhile")
	}
	c.above = c.above[:len(c.above)-1]
	c.move(fd)
	return last.name, nil
}

func (c *cursor) move(fd int) {
	unix.Close(c.fd)
	c.fd, c.unread = fd, nil
}

// where tells how far below the top the cursor is. The container has chosen
// the name, and how long the way is.
func (c *cursor) where() string {
	if len(c.above) == 0 {
		return "its top"
	}
	return fmt.Sprintf("%.64q at depth %d", c.above[len(c.above)-1].name, len(c.above))
}

// inode returns that of an open directory, which must be on this device.
func inode(fd int, dev uint64) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Dev != dev {
		return 0, unix.EXDEV
	}
	return st.Ino, nil
}

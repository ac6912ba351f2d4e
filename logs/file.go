package logs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"containerd-shim-rich/hostfs"
)

const (
	// logRoot is where the logs of components are on the host, as
	// NAMESPACE/CONTAINER/NAME.log.
	logRoot = "/var/log"
	logDir  = "rich"
)

// File writes to a file on the host, in the format of the CRI: time,
// stream, F or P for a full or a partial line, text.
type File struct {
	dir   *hostfs.Dir
	name  string
	file  *os.File
	size  int64
	limit int64
}

// Dir is the directory of a container's logs, below logRoot.
func Dir(namespace, id string) string {
	return path.Join(logDir, strings.ReplaceAll(namespace, "/", "_"), id)
}

// OpenFile begins a log in a directory below logRoot.
func OpenFile(dir, name string, limit int64) (*File, error) {
	root, err := hostfs.Open(logRoot)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	l := &File{name: name + ".log", limit: limit}
	// Another shim may remove a directory above that has become empty.
	const attempts = 10
	for range attempts {
		if err = root.MkdirAll(dir, 0o700); err == nil {
			l.dir, err = root.Sub(dir)
		}
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.dir.Close())
	}
	return l, nil
}

// open makes the file anew. Whatever else has its name goes away and is not
// followed, should it be a link.
func (l *File) open() (err error) {
	if err := l.dir.Remove(l.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l.size = 0
	l.file, err = l.dir.Create(l.name, 0o600)
	return err
}

// WriteLine implements Writer.
func (l *File) WriteLine(stream string, line []byte, partial bool) bool {
	tag := "F"
	if partial {
		tag = "P"
	}
	text := fmt.Appendf(nil, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, line)
	if l.size+int64(len(text)) > l.limit && l.rotate() != nil {
		return false
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	return err == nil
}

func (l *File) rotate() error {
	if err := l.dir.Rename(l.name, l.name+".1"); err != nil {
		return err
	}
	l.file.Close()
	return l.open()
}

// Close ends the log.
func (l *File) Close() error { return errors.Join(l.file.Close(), l.dir.Close()) }

// Remove removes a directory below logRoot, and those above it that were
// made for it.
func Remove(dir string) error {
	if dir == "" {
		return nil
	}
	root, err := os.OpenRoot(logRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the logs of components: %w", err)
	}
	for dir = filepath.Dir(dir); dir != "."; dir = filepath.Dir(dir) {
		if root.Remove(dir) != nil {
			break // others have logs there
		}
	}
	return nil
}

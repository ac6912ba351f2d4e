package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	errNotInPath = errors.New("executable file not found in $PATH")
	errRelative  = errors.New("cannot run executable found relative to current directory")
)

// lookPath finds the file of a program as runc does, which uses Go's
// exec.LookPath: a name with a slash is a path, another is looked for in the
// directories of pathList, by the present user's rights, and a hit in a
// relative directory is refused. (Package os/exec itself would double the
// launcher.)
func lookPath(name, pathList string) (string, error) {
	switch name {
	case "", ".", "..":
		return "", errNotInPath
	}
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if pathList == "" {
		// strings.Split has one element here, filepath.SplitList none.
		return "", errNotInPath
	}
	for _, dir := range strings.Split(pathList, ":") {
		path := filepath.Join(dir, name)
		if executable(path) != nil {
			continue
		}
		if !filepath.IsAbs(path) {
			return "", errRelative
		}
		return path, nil
	}
	return "", errNotInPath
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// programCode is the exit status for a program that could not be executed,
// as POSIX has it for the shell: 127 if it does not exist, 126 otherwise.
func programCode(err error) uint32 {
	if errors.Is(err, errNotInPath) || errors.Is(err, unix.ENOENT) {
		return exitNotFound
	}
	return exitCannot
}

// quote makes any name fit a message of one line, and the message a frame.
func quote(name string) string { return fmt.Sprintf("%.256q", name) }

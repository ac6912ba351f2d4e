package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ReadOwned reads a file of the host that says what root runs. It refuses what
// is not a regular file of at most limit bytes, or that others can write or put
// another one in place of. The error does not name the file.
func ReadOwned(path string, limit int64) ([]byte, error) {
	// Without blocking, should it be a fifo.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file; replace it by one, or remove it")
	}
	if err := CheckOwner(info); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	folder, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	// In one with the sticky bit nobody can replace root's files (inode(7)).
	if folder.Mode()&fs.ModeSticky == 0 {
		if err := CheckOwner(folder); err != nil {
			return nil, fmt.Errorf("its directory %s: %w", dir, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("larger than %d bytes; shorten it", limit)
	}
	return data, nil
}

// CheckOwner refuses a file or directory that others can write than root,
// whom the shim runs as.
func CheckOwner(info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("its owner is user %d; chown it to root", st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("its group or others can write it (mode %#o); chmod go-w", st.Mode&0o7777)
	}
	return nil
}

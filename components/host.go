package components

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Dir holds the definitions of a host, a file NAME.toml for each.
const Dir = "/etc/containerd/rich/components.d"

const (
	suffix = ".toml"
	// maxFile bounds a definition in bytes, and maxFiles how many are listed.
	maxFile  = 64 << 10
	maxFiles = 4096
)

// ErrNotOffered is wrapped by the error about a component that has no
// definition.
var ErrNotOffered = errors.New("not offered by the host")

// Load reads the definition of a component from dir.
func Load(dir, name string) (*Definition, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("component %q: %w", name, err)
	}
	path := filepath.Join(dir, name+suffix)
	data, err := read(dir, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("component %q: %w; %s", name, ErrNotOffered, offer(dir))
	}
	if err != nil {
		return nil, err
	}
	d, err := Parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func read(dir, path string) ([]byte, error) {
	folder, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(dir, folder); err != nil {
		return nil, err
	}
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
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := checkOwner(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes; shorten it", path, maxFile)
	}
	return data, nil
}

// checkOwner refuses what somebody else than root, whom the shim runs as,
// could write.
func checkOwner(path string, info fs.FileInfo) error {
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("%s: owned by uid %d; make root its owner", path, owner)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: mode %04o: its group or others may write it; chmod go-w", path, info.Mode().Perm())
	}
	return nil
}

// offer says which components a host offers.
func offer(dir string) string {
	f, err := os.Open(dir)
	if err != nil {
		return "it offers none"
	}
	defer f.Close()
	files, _ := f.Readdirnames(maxFiles)
	var found []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file, suffix); ok && CheckName(name) == nil {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return "it offers none"
	}
	slices.Sort(found)
	return "it offers " + strings.Join(found, ", ")
}

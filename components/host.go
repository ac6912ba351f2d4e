package components

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"containerd-shim-rich/config"
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
	data, err := config.ReadOwned(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("component %q: %w; %s", name, ErrNotOffered, offer(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d, err := Parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
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

// Package oci loads, rewrites and stores the config.json of a bundle.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/hostfs"
)

const (
	configFile   = "config.json"
	originalFile = "config.orig.json"

	// rewritten marks a spec as the result of Rewrite, so that a second
	// Create on the same bundle starts again from the original.
	rewritten = "containerd-shim-rich.rewritten"

	// maxConfig bounds config.json in bytes; arguments and environment
	// alone are bounded by the kernel to 6 MiB (execve(2)).
	maxConfig = 32 << 20
)

// Load reads the spec of a bundle as its maker wrote it, also when the
// bundle has been rewritten meanwhile.
func Load(bundle string) (*specs.Spec, error) {
	spec, err := read(filepath.Join(bundle, configFile))
	if err != nil {
		return nil, err
	}
	if _, ok := spec.Annotations[rewritten]; !ok {
		return spec, nil
	}
	if spec, err = read(filepath.Join(bundle, originalFile)); err != nil {
		return nil, fmt.Errorf("%s is rewritten, its original is needed: %w", configFile, err)
	}
	return spec, nil
}

// Annotations reads no more than the annotations of a bundle's spec.
func Annotations(bundle string) (map[string]string, error) {
	var spec struct{ Annotations map[string]string }
	err := decode(filepath.Join(bundle, configFile), &spec)
	return spec.Annotations, err
}

func read(path string) (*specs.Spec, error) {
	spec := &specs.Spec{}
	if err := decode(path, spec); err != nil {
		return nil, err
	}
	return spec, nil
}

func decode(path string, spec any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("%s: larger than %d bytes", path, maxConfig)
	}
	if err := json.Unmarshal(data, spec); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Store writes a rewritten spec into the bundle and keeps the original as
// config.orig.json. A reader sees either the old or the new config.json.
func Store(bundle string, spec *specs.Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	dir, err := hostfs.Open(bundle)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Link(configFile, originalFile); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return dir.Replace(configFile, data, 0o600)
}

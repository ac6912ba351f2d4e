package hooks

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// hostHookDirs are where a host keeps its hooks for all engines, from low to
// high precedence (oci-hooks(5)).
var hostHookDirs = []string{"/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"}

// maxHostHook bounds a file of hooks.d in bytes.
const maxHostHook = 1 << 20

// OCI are the hooks of the specification for a container: those of its
// bundle, then the host's that are meant for it if they are wanted. All have
// a timeout.
func OCI(spec *specs.Spec, host bool, timeout time.Duration) (*specs.Hooks, error) {
	all := specs.Hooks{}
	if spec.Hooks != nil {
		all = *spec.Hooks
	}
	if host {
		if err := addHostHooks(&all, spec); err != nil {
			return nil, err
		}
	}
	seconds := int((timeout + time.Second - 1) / time.Second)
	for _, list := range []*[]specs.Hook{
		&all.Prestart, //nolint:staticcheck // deprecated, and in use
		&all.CreateRuntime, &all.CreateContainer, &all.StartContainer, &all.Poststart, &all.Poststop,
	} {
		*list = slices.Clone(*list)
		for i := range *list {
			if (*list)[i].Timeout == nil {
				(*list)[i].Timeout = &seconds
			}
		}
	}
	return &all, nil
}

func addHostHooks(all *specs.Hooks, spec *specs.Spec) error {
	// A file hides one of the same name in a directory before.
	files := map[string]string{}
	for _, dir := range hostHookDirs {
		names, err := hostHookNames(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			files[name] = filepath.Join(dir, name)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return strings.Compare(strings.ToLower(a), strings.ToLower(b))
	}) {
		h, err := readHostHook(files[name])
		if err != nil {
			return fmt.Errorf("hook of the host: %s: %w", files[name], err)
		}
		if h.Matches(spec) {
			h.Add(all)
		}
	}
	return nil
}

func hostHookNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	info, err := d.Stat()
	if err == nil {
		err = config.CheckOwner(info)
	}
	if err != nil {
		return nil, fmt.Errorf("hooks of the host: %s: %w", dir, err)
	}
	names, err := d.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".json" }), err
}

func readHostHook(path string) (*HostHook, error) {
	data, err := config.ReadOwned(path, maxHostHook)
	if err != nil {
		return nil, err
	}
	return ParseHost(data)
}

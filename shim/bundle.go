package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"

	"containerd-shim-rich/cgroup"

	"containerd-shim-rich/logs"
)

// What this runtime keeps in a bundle, all below one directory.
const (
	richDir     = "rich"      // everything of ours
	stateDir    = "state"     // libcontainer's state
	runDir      = "run"       // what the container sees at /run/rich
	binDir      = "bin"       // read-only view of the programs given to it
	initLogFile = "init.log"  // what the init itself says
	initFile    = "init.json" // how far the init is
	exitFile    = "exit.json" // how the container ended
	madeFile    = "made.json" // facts needed to clean up without the shim
	socketFor   = "shim.sock" // the launcher's way to the shim, in runDir
	appFile     = "app.json"  // how the CMD is, in runDir

	rootfsDir = "rootfs" // the root file system, beside richDir
)

// maxStored bounds what is read of a file that a shim has stored, in bytes: the
// largest part are the hooks and annotations of a config.json.
const maxStored = 32 << 20

// bundle is the directory that containerd makes for a container.
type bundle string

func (b bundle) path(name ...string) string {
	return filepath.Join(append([]string{string(b), richDir}, name...)...)
}

// made are the traces of a container outside of its bundle.
type made struct {
	Version format `json:"version"`
	// Rootfs is the root file system, and Mounted whether the shim mounted it.
	Rootfs  string `json:"rootfs"`
	Mounted bool   `json:"mounted"`
	// MountPoints are files and directories of the root file system that
	// were not there before, outermost first.
	MountPoints []string `json:"mountPoints,omitempty"`
	// Volumes are the same in volumes of the user's.
	Volumes []volumePoints `json:"volumes,omitempty"`
	// Logs is the directory of the components' logs, below logRoot.
	Logs string `json:"logs,omitempty"`
	// Cgroups are the container's cgroups by controller. libcontainer stores
	// them only after its first hooks.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	// Fence is the cgroup around them, nil if there is none.
	Fence *cgroups.Cgroup `json:"fence,omitempty"`
	// Poststop are the hooks that are still to be run, with State for input.
	Poststop []specs.Hook `json:"poststop,omitempty"`
	State    specs.State  `json:"state"`
}

// exitRecord is how a container ended. It is stored before the event is
// sent, so that it survives the shim.
type exitRecord struct {
	Version format    `json:"version"`
	PID     int       `json:"pid"`
	Status  uint32    `json:"status"`
	At      time.Time `json:"at"`
}

// open opens the directory of ours.
func (b bundle) open() (*hostfs.Dir, error) {
	dir, err := hostfs.Open(string(b))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Sub(richDir)
}

// make makes the directory of ours, unless it is there.
func (b bundle) make() error {
	dir, err := hostfs.Open(string(b))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Mkdir(richDir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (b bundle) store(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Replace(name, data, 0o600)
}

func (b bundle) load(name string, v any) error {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	data, err := dir.ReadFile(name, maxStored)
	if err != nil {
		return err
	}
	if err := checkFormat(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// missing lists the mount points of a plan that the root file system lacks,
// with their missing parents, outermost first. libcontainer makes them, and
// they are removed at the end. Nothing is listed that lies in another mount.
func missing(rootfs string, plan *initmode.Plan) ([]string, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []string
	for _, m := range plan.Mounts {
		if inMount(m.Resolved, plan) {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(m.Resolved, "/"), "/")
		for i := range parts {
			p := filepath.Join(parts[:i+1]...)
			if _, err := root.Lstat(p); errors.Is(err, os.ErrNotExist) && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// inMount reports whether a path lies below a mount of the container.
func inMount(path string, plan *initmode.Plan) bool {
	for _, dir := range plan.Destinations {
		if strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	for _, m := range plan.Mounts {
		if strings.HasPrefix(path, m.Resolved+"/") {
			return true
		}
	}
	return false
}

// removeMountPoints removes what was made for mounts, unless something uses
// it: a file only if it is empty, a directory only if it is.
func removeMountPoints(m made) error {
	if len(m.MountPoints) == 0 {
		return nil
	}
	root, err := os.OpenRoot(m.Rootfs)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	for i := len(m.MountPoints) - 1; i >= 0; i-- {
		p := m.MountPoints[i]
		info, err := root.Lstat(p)
		if err != nil || (info.Mode().IsRegular() && info.Size() != 0) || !info.Mode().IsRegular() && !info.IsDir() {
			continue
		}
		err = root.Remove(p)
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweep removes everything of a container but its bundle: the cgroup around
// it, its mount points in the image, then the mounts on the host.
func (b bundle) sweep(m made) error {
	errs := []error{cgroup.RemoveFence(m.Fence, removeWait), removeMountPoints(m), removeVolumePoints(m.Volumes), logs.Remove(m.Logs)}
	if err := mount.UnmountRecursive(b.path(componentsDir), unix.MNT_DETACH); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", b.path(componentsDir), err))
	}
	errs = append(errs, b.unmount(binDir, runDir))
	if m.Mounted {
		if err := mount.UnmountRecursive(m.Rootfs, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount root file system: %w", err))
		}
	}
	return errors.Join(errs...)
}

// linkState makes a common directory for the state of all containers of a
// namespace this bundle's own, so that whoever cleans up finds it. Without
// one the state lies in the bundle.
func (b bundle) linkState(common, namespace string) error {
	if common == "" {
		return nil
	}
	// The directory is one of the host's, and its path the engine's.
	dir := filepath.Join(common, strings.ReplaceAll(namespace, "/", "_"))
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // a path of the engine's own, which may lead through links
		return err
	}
	ours, err := b.open()
	if err != nil {
		return err
	}
	defer ours.Close()
	return ours.Symlink(dir, stateDir)
}

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/life"
	"containerd-shim-rich/logs"
	"containerd-shim-rich/oci"
)

// cgroupsWait bounds how long the cgroups of a container without a shim are
// emptied, and then removed. containerd ends the call that cleans up after a shim
// when it takes longer than 5 s (io.containerd.timeout.shim.cleanup), and then
// keeps the bundle.
const cgroupsWait = killWait / 2

// remains ends and removes what is left of a container whose shim is gone,
// and returns how it ended. It does nothing where nothing is left. children
// are those of this process.
func remains(path string, children *child.Children) (bundle.Exit, error) {
	b, id, began := bundle.Bundle(path), filepath.Base(path), time.Now()
	exit := bundle.Exit{Status: life.StatusKilled, At: began}
	m, err := facts(b, id)
	if errors.Is(err, os.ErrNotExist) {
		return exit, os.RemoveAll(b.Path())
	}
	errs := []error{err}
	c, err := libcontainer.Load(b.Path(bundle.StateDir), id)
	if err == nil {
		if state, err := c.State(); err == nil {
			exit.PID = state.InitProcessPid
		}
		if err := child.Destroy(c, cgroupsWait); err != nil {
			// A pid 1 that is dead can stay for as long as the host's init
			// lets a dead process of its namespace wait: it is in no cgroup
			// any more (pid_namespaces(7)).
			errs = append(errs, err, child.DestroyCgroups(m.Cgroups, cgroupsWait), os.RemoveAll(b.Path(bundle.StateDir, id)))
		}
	} else {
		if !errors.Is(err, libcontainer.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, child.DestroyCgroups(m.Cgroups, cgroupsWait), os.RemoveAll(b.Path(bundle.StateDir, id)))
	}
	// The shim may have known more.
	var stored bundle.Exit
	switch err := b.Load(bundle.ExitFile, &stored); {
	case err == nil:
		exit = stored
	case !errors.Is(err, os.ErrNotExist):
		errs = append(errs, fmt.Errorf("%s: %w", bundle.ExitFile, err))
	}
	errs = append(errs, hooks.RunOrphans(b, id, &m, exit, began, children), hooks.RunPoststop(b, &m, hooks.HostWait), sweep(b, m), os.RemoveAll(b.Path()))
	return exit, errors.Join(errs...)
}

// sweep removes everything of a container but its bundle: the cgroup around
// it, its mount points in the image, then the mounts on the host.
func sweep(b bundle.Bundle, m bundle.Made) error {
	errs := []error{cgroup.RemoveFence(m.Fence, removeWait), bundle.RemoveMountPoints(m), bundle.RemoveVolumePoints(m.Volumes), logs.Remove(m.Logs)}
	if err := mount.UnmountRecursive(b.Path(componentsDir), unix.MNT_DETACH); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", b.Path(componentsDir), err))
	}
	errs = append(errs, b.Unmount(bundle.BinDir, bundle.RunDir))
	if m.Mounted {
		if err := mount.UnmountRecursive(m.Rootfs, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount root file system: %w", err))
		}
	}
	return errors.Join(errs...)
}

// facts loads what was noted about a container. If a crash has spoilt that, or
// a newer program has written it, it returns what can be known without, and an error that tells so.
// os.ErrNotExist says that there never was anything.
func facts(b bundle.Bundle, id string) (bundle.Made, error) {
	var m bundle.Made
	err := b.Load(bundle.MadeFile, &m)
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &syntax) && !errors.As(err, &mismatch) && !errors.Is(err, bundle.ErrNewer) {
		return m, err
	}
	m = bundle.Made{Rootfs: filepath.Join(string(b), bundle.RootfsDir), Mounted: true}
	if spec, err := oci.Load(string(b)); err == nil && spec.Hooks != nil {
		m.Poststop, m.State = spec.Hooks.Poststop, hooks.StateOf(id, b, spec)
	}
	return m, fmt.Errorf("%s: %w", bundle.MadeFile, err)
}

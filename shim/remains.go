package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runc/libcontainer"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/oci"

	"containerd-shim-rich/child"
)

// containerd ends the call that cleans up after a shim when it takes longer
// than 5 s (io.containerd.timeout.shim.cleanup), and then keeps the bundle.
const (
	// hooksWait bounds all poststop hooks together.
	hooksWait = 2 * time.Second
	// cgroupsWait bounds how long the cgroups of a container without a shim
	// are emptied, and then removed.
	cgroupsWait = killWait / 2
)

// remains ends and removes what is left of a container whose shim is gone,
// and returns how it ended. It does nothing where nothing is left. children
// are those of this process.
func remains(path string, children *child.Children) (exitRecord, error) {
	b, id, began := bundle(path), filepath.Base(path), time.Now()
	exit := exitRecord{Status: statusKilled, At: began}
	m, err := b.facts(id)
	if errors.Is(err, os.ErrNotExist) {
		return exit, os.RemoveAll(b.path())
	}
	errs := []error{err}
	c, err := libcontainer.Load(b.path(stateDir), id)
	if err == nil {
		if state, err := c.State(); err == nil {
			exit.PID = state.InitProcessPid
		}
		if err := destroy(c); err != nil {
			// A pid 1 that is dead can stay for as long as the host's init
			// lets a dead process of its namespace wait: it is in no cgroup
			// any more (pid_namespaces(7)).
			errs = append(errs, err, destroyCgroups(m.Cgroups), os.RemoveAll(b.path(stateDir, id)))
		}
	} else {
		if !errors.Is(err, libcontainer.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, destroyCgroups(m.Cgroups), os.RemoveAll(b.path(stateDir, id)))
	}
	// The shim may have known more.
	var stored exitRecord
	switch err := b.load(exitFile, &stored); {
	case err == nil:
		exit = stored
	case !errors.Is(err, os.ErrNotExist):
		errs = append(errs, fmt.Errorf("%s: %w", exitFile, err))
	}
	errs = append(errs, orphanHooks(b, id, &m, exit, began, children), b.runPoststop(&m, hooksWait), b.sweep(m), os.RemoveAll(b.path()))
	return exit, errors.Join(errs...)
}

// facts loads what was noted about a container. If a crash has spoilt that, or
// a newer program has written it, it returns what can be known without, and an error that tells so.
// os.ErrNotExist says that there never was anything.
func (b bundle) facts(id string) (made, error) {
	var m made
	err := b.load(madeFile, &m)
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &syntax) && !errors.As(err, &mismatch) && !errors.Is(err, errNewer) {
		return m, err
	}
	m = made{Rootfs: filepath.Join(string(b), rootfsDir), Mounted: true}
	if spec, err := oci.Load(string(b)); err == nil && spec.Hooks != nil {
		m.Poststop, m.State = spec.Hooks.Poststop, stateOf(id, b, spec)
	}
	return m, fmt.Errorf("%s: %w", madeFile, err)
}

// destroy kills a container that is not a child of this process, and removes
// it.
func destroy(c *libcontainer.Container) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	wait, err := child.Kill(state, killWait)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := errors.Join(cgroup.Kill(state.CgroupPaths, cgroupsWait), wait()); err != nil {
		return err
	}
	return removeContainer(c, state.CgroupPaths, cgroupsWait)
}

// destroyCgroups kills what is in the cgroups of a container of which
// libcontainer has no state, and removes them.
func destroyCgroups(paths map[string]string) error {
	return errors.Join(cgroup.Kill(paths, cgroupsWait), cgroup.Remove(paths, cgroupsWait))
}

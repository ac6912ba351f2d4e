package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
	cgroupmanager "github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// fence is the cgroup that a spec names for a container that may write to its
// cgroups (cgroup v2 only). The container's own is one level below it, with
// the same limits, which are there to be read: those that hold are the
// fence's, to which no file leads from within the container.
//
// The kernel does not fence off that one level by itself. All files of a
// cgroup belong to root, and the container's root is that, unless it has a
// user namespace. With the mount option nsdelegate the kernel denies writing
// to the top of a cgroup namespace, but only within that very namespace: who
// unshares a further one, with a user namespace for the privilege, may write
// (cgroup_namespaces(7), Delegation of cgroups in Documentation/admin-guide/cgroup-v2.rst).
type fence struct {
	config  *cgroups.Cgroup
	manager cgroups.Manager
	// inner is the path of the container's cgroup in the hierarchy.
	inner string
	owner *int // of inner, if it is not root
	held  func() error
}

// innerCgroup is the name of a container's cgroup within its fence.
const innerCgroup = "rich"

// delegated are the files of a cgroup that go to whom it is delegated
// (/sys/kernel/cgroup/delegate, without those that only count).
var delegated = []string{".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}

// newFence turns cg into the configuration of a cgroup one level below, and
// returns that of the fence around it, which is not made yet.
func newFence(cg *cgroups.Cgroup) (*fence, error) {
	around := *cg
	around.OwnerUID = nil
	if cg.Resources != nil {
		resources := *cg.Resources
		resources.SkipDevices = true // the container's own cgroup has them
		around.Resources = &resources
	}
	manager, err := cgroupmanager.New(&around)
	if err != nil {
		return nil, err
	}
	outer := strings.TrimPrefix(manager.Path(""), fs2.UnifiedMountpoint)
	f := &fence{config: &around, inner: path.Join("/", outer, innerCgroup), owner: cg.OwnerUID}
	if pids, err := cgroups.GetAllPids(f.dir()); err == nil && len(pids) > 0 {
		return nil, fmt.Errorf("linux.cgroupsPath: another container is in %s; give each container a path of its own: %w", outer, errdefs.ErrFailedPrecondition)
	}
	if !around.Systemd {
		// Whoever removes it may be in another cgroup, from which a
		// relative path would lead elsewhere.
		f.config = &cgroups.Cgroup{Path: outer, Resources: around.Resources}
	}
	*cg = cgroups.Cgroup{Path: f.inner, Resources: cg.Resources}
	return f, nil
}

// dir is the container's cgroup in the file system.
func (f *fence) dir() string { return filepath.Join(fs2.UnifiedMountpoint, f.inner) }

// raise makes the fence. What it made before an error, removeFence removes.
func (f *fence) raise() (err error) {
	if f.manager, err = cgroupmanager.New(f.config); err != nil {
		return err
	}
	pid := -1
	if f.config.Systemd {
		// systemd makes no scope without a process (systemd.scope(5)).
		holder, leave, err := hold()
		if err != nil {
			return err
		}
		pid = holder
		f.held = leave
	}
	if err := f.manager.Apply(pid); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.Mkdir(f.dir(), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if pid != -1 {
		// A cgroup with processes cannot have controllers below it.
		if err := cgroups.WriteCgroupProc(f.dir(), pid); err != nil {
			return err
		}
	}
	if err := f.manager.Set(f.config.Resources); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	if f.owner == nil {
		return nil
	}
	for _, name := range delegated {
		if err := os.Chown(filepath.Join(f.dir(), name), *f.owner, -1); err != nil {
			return err
		}
	}
	return nil
}

// release ends what has kept the fence until the container is in it.
func (f *fence) release() error {
	if f == nil || f.held == nil {
		return nil
	}
	leave := f.held
	f.held = nil
	return leave()
}

// leaf returns where pid 1 is, relative to the container's cgroup, "" if it
// is at its top.
func (f *fence) leaf(pid int) (string, error) {
	at, err := cgroup2.PidGroupPath(pid)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(f.inner, at)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", err
	}
	return rel, nil
}

// clear moves what has come to the top of the container's cgroup to where
// pid 1 is, if that has left it: while there are processes, an init cannot
// give controllers to its services (Documentation/admin-guide/cgroup-v2.rst, No Internal Process Constraint).
func (f *fence) clear(pid int) error {
	leaf, err := f.leaf(pid)
	if err != nil || leaf == "" {
		return err
	}
	pids, err := cgroups.GetPids(f.dir())
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pids {
		err := cgroups.WriteCgroupProc(filepath.Join(f.dir(), leaf), p)
		if !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// update changes the limits of the fence and then, by inner, those of the
// container's cgroup. It reverts them if one is refused.
func (f *fence) update(resources cgroups.Resources, inner func() error) error {
	resources.SkipDevices = true
	before := f.config.Resources
	err := f.manager.Set(&resources)
	if err == nil {
		err = inner()
	}
	if err != nil {
		if undo := f.manager.Set(before); undo != nil {
			err = fmt.Errorf("%w (and back: %w)", err, undo)
		}
		return err
	}
	f.config.Resources = &resources
	return nil
}

// removeFence removes a fence when the container's cgroup is gone.
func removeFence(around *cgroups.Cgroup) error {
	if around == nil {
		return nil
	}
	manager, err := cgroupmanager.New(around)
	if err != nil {
		return err
	}
	if err := manager.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// Holder is the argument with which this program stays, doing nothing, until
// its standard input ends.
const Holder = "hold-cgroup"

// Hold does that.
func Hold() { _, _ = io.Copy(io.Discard, os.Stdin) }

// hold starts a process that can be put into a cgroup.
func hold() (pid int, leave func() error, err error) {
	cmd := exec.Command("/proc/self/exe", Holder)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, func() error {
		stdin.Close()
		return cmd.Wait()
	}, nil
}

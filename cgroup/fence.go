package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
	cgroupmanager "github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Fence is the cgroup that a spec names for a container that may write to its
// cgroups (cgroup v2 only). The container's own is one level below it, with
// the same limits, which are there to be read: those that hold are the
// fence's, to which no file leads from within the container. systemd-nspawn
// keeps limits out of reach in the same way, and so does crun if it is asked
// to delegate a cgroup.
//
// The kernel does not do it. All files of a cgroup belong to root, and the
// container's root is that, unless it has a user namespace. With the mount
// option nsdelegate the kernel denies writing to the top of a cgroup
// namespace, but only within that very namespace: who unshares a further one,
// with a user namespace for the privilege, may write (cgroup_namespaces(7);
// Documentation/admin-guide/cgroup-v2.rst, Delegation Containment).
type Fence struct {
	config  *cgroups.Cgroup
	manager cgroups.Manager
	// inner is the path of the container's cgroup in the hierarchy.
	inner string
	// leave ends the process that has kept the fence until the container is
	// in it; nil without one.
	leave func() error
}

// Names of cgroups within a fence.
const (
	innerCgroup = "rich" // the container's
	holdCgroup  = "hold"
)

// NewFence plans a fence, and turns cg into the configuration of a cgroup one
// level below. It is nil where there is none: on v1 the limits are in other
// hierarchies than what a container may write to.
func NewFence(cg *cgroups.Cgroup) (*Fence, error) {
	if !Unified() {
		return nil, nil
	}
	around := *cg
	around.OwnerUID = nil
	around.Resources = withoutDevices(cg.Resources)
	manager, err := cgroupmanager.New(&around)
	if err != nil {
		return nil, err
	}
	outer := strings.TrimPrefix(manager.Path(""), fs2.UnifiedMountpoint)
	if pids, err := cgroups.GetAllPids(manager.Path("")); err == nil && len(pids) > 0 {
		return nil, fmt.Errorf("linux.cgroupsPath: %s has processes already; give each container a path of its own: %w", outer, errdefs.ErrFailedPrecondition)
	}
	f := &Fence{config: &around, inner: path.Join("/", outer, innerCgroup)}
	if !around.Systemd {
		// Whoever removes it may be in another cgroup, from which a
		// relative path would lead elsewhere.
		f.config = &cgroups.Cgroup{Path: outer, Resources: around.Resources}
	}
	if f.manager, err = cgroupmanager.New(f.config); err != nil {
		return nil, err
	}
	*cg = cgroups.Cgroup{Path: f.inner, Resources: cg.Resources}
	return f, nil
}

// withoutDevices leaves the rules for devices to the container's own cgroup.
func withoutDevices(r *cgroups.Resources) *cgroups.Resources {
	if r == nil {
		return nil
	}
	rest := *r
	rest.SkipDevices = true
	return &rest
}

// Around is the configuration of a fence, by which it is removed.
func (f *Fence) Around() *cgroups.Cgroup { return f.config }

// outer is the fence's path in the hierarchy.
func (f *Fence) outer() string { return path.Dir(f.inner) }

// dir is a cgroup within the fence in the file system.
func (f *Fence) dir(name ...string) string {
	return filepath.Join(slices.Concat([]string{fs2.UnifiedMountpoint, f.outer()}, name)...)
}

// Raise makes the fence.
func (f *Fence) Raise() error {
	pid := -1
	if f.config.Systemd {
		// systemd makes no scope without a process (systemd.scope(5)).
		var err error
		if pid, err = f.hold(); err != nil {
			return err
		}
	}
	if err := f.manager.Apply(pid); err != nil {
		return err
	}
	if pid != -1 {
		// A cgroup with processes cannot have controllers below it, and
		// libcontainer refuses one for a container that has processes.
		if err := os.Mkdir(f.dir(holdCgroup), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := cgroups.WriteCgroupProc(f.dir(holdCgroup), pid); err != nil {
			return err
		}
	}
	if err := f.manager.Set(f.config.Resources); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	return Limit(map[string]string{"": f.dir()})
}

// Release ends what has kept the fence.
func (f *Fence) Release() error {
	if f == nil || f.leave == nil {
		return nil
	}
	leave := f.leave
	f.leave = nil
	return leave()
}

// Place makes a process that is to be started join the cgroup of pid 1, if
// that has left the top. libcontainer itself turns to it only when the top
// does not take processes any more: later than an init that manages cgroups
// has left it, and too late for one that wants it to be empty.
func (f *Fence) Place(p *libcontainer.Process, pid1 int) {
	if f == nil {
		return
	}
	if leaf, err := f.leaf(pid1); err == nil && leaf != "" {
		p.SubCgroupPaths = map[string]string{"": leaf}
	}
}

// leaf returns where pid 1 is, relative to the container's cgroup, "" if it
// is at its top.
func (f *Fence) leaf(pid1 int) (string, error) {
	at, err := cgroup2.PidGroupPath(pid1)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(f.inner, at)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", err
	}
	return rel, nil
}

// Clear moves what has come to the top of the container's cgroup to where
// pid 1 is, if that has left it meanwhile: while there are processes, an init
// cannot give controllers to its services
// (Documentation/admin-guide/cgroup-v2.rst, No Internal Process Constraint).
func (f *Fence) Clear(pid1 int) error {
	if f == nil {
		return nil
	}
	leaf, err := f.leaf(pid1)
	if err != nil || leaf == "" {
		return err
	}
	pids, err := cgroups.GetPids(f.dir(innerCgroup))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pids {
		if err := cgroups.WriteCgroupProc(f.dir(innerCgroup, leaf), p); !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Update changes the limits of the fence and then, by inner, those of the
// container's cgroup. It reverts them if one is refused.
func (f *Fence) Update(resources *cgroups.Resources, inner func() error) error {
	if f == nil {
		return inner()
	}
	resources = withoutDevices(resources)
	err := f.manager.Set(resources)
	if err == nil {
		err = inner()
	}
	if err != nil {
		return errors.Join(err, f.manager.Set(f.config.Resources))
	}
	f.config.Resources = resources
	return nil
}

// RemoveFence removes a fence when the container's cgroup is gone.
func RemoveFence(around *cgroups.Cgroup, limit time.Duration) error {
	if around == nil {
		return nil
	}
	manager, err := cgroupmanager.New(around)
	if err != nil {
		return err
	}
	if err := Remove(map[string]string{"": manager.Path("")}, limit); err != nil {
		return err
	}
	if err := manager.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// holdCommand makes this program stay, doing nothing, until its standard
// input ends.
const holdCommand = "hold-cgroup"

// Hold does that if args ask for it, and returns whether they do.
func Hold(args []string) bool {
	if len(args) != 1 || args[0] != holdCommand {
		return false
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// hold starts a process that stays until release, or until this one is gone.
func (f *Fence) hold() (pid int, err error) {
	cmd := exec.Command("/proc/self/exe", holdCommand)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	f.leave = func() error {
		stdin.Close()
		_ = cmd.Wait() // no matter if a limit has killed it
		if err := unix.Rmdir(f.dir(holdCgroup)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return &os.PathError{Op: "rmdir", Path: f.dir(holdCgroup), Err: err}
		}
		return nil
	}
	return cmd.Process.Pid, nil
}

package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/child"
	"containerd-shim-rich/config"
)

const (
	// aloneDir is libcontainer's state directory, in the bundle, of
	// containers that run one hook.
	aloneDir = "hook"
	// aloneSuffix tells the cgroup of such a container from the other's.
	aloneSuffix = "-poststop"
	// destroyWait bounds how long the container of a hook is emptied, and then
	// removed.
	destroyWait = time.Second
	// orphanTimeout is how much of the time that containerd gives the
	// clean-up after a shim is there for hooks. Those of the host have
	// HostWait of it.
	orphanTimeout = 3500 * time.Millisecond
	// HostWait bounds all poststop hooks of the host together, then.
	HostWait = 2 * time.Second
)

// alone runs hooks in containers of their own, with the files and the limits
// of a container whose pid 1 is gone.
type alone struct {
	*Set
	rootfs string
}

// container is a container for one hook.
func (a alone) container(hook config.Hook) (*libcontainer.Container, *libcontainer.Process, error) {
	spec := *a.spec
	spec.Hooks = nil
	spec.Process = a.process(hook, Poststop)
	spec.Root = &specs.Root{Path: a.rootfs, Readonly: a.spec.Root.Readonly}
	if spec.Linux != nil {
		linux := *spec.Linux
		linux.IntelRdt = nil
		linux.CgroupsPath = aloneCgroup(linux.CgroupsPath, a.id)
		linux.Namespaces = slices.DeleteFunc(slices.Clone(linux.Namespaces), func(ns specs.LinuxNamespace) bool {
			return ns.Type == specs.PIDNamespace
		})
		for i, ns := range linux.Namespaces {
			if f := a.namespaces[ns.Type]; f != nil {
				linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
			}
		}
		if a.namespaces[specs.UserNamespace] != nil {
			// libcontainer takes them from the namespace.
			linux.UIDMappings, linux.GIDMappings = nil, nil
		}
		linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
		spec.Linux = &linux
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       a.id + aloneSuffix,
		UseSystemdCgroup: a.record.SystemdCgroup,
		NoPivotRoot:      a.record.NoPivotRoot,
		NoNewKeyring:     a.record.NoNewKeyring,
		Spec:             &spec,
	})
	if err != nil {
		return nil, nil, err
	}
	cfg.Rootfs = a.rootfs
	proc, err := child.NewProcess(spec.Process)
	if err != nil {
		return nil, nil, err
	}
	proc.Init = true
	lc, err := libcontainer.Create(a.bundle.Path(aloneDir), a.id, cfg)
	return lc, proc, err
}

// aloneCgroup is beside the container's own: that one may be left with groups
// of its init in it, which keep processes out (cgroups(7), no internal
// processes).
func aloneCgroup(path, id string) string {
	if path == "" {
		return "/" + id + aloneSuffix
	}
	return strings.TrimSuffix(path, "/") + aloneSuffix
}

// run runs one hook. It is a Runner.
func (a alone) run(ctx context.Context, hook config.Hook, option string) (started bool, err error) {
	lc, proc, err := a.container(hook)
	if err != nil {
		err = hookError(option, hook.Path, fmt.Errorf("create a container for it: %w", err), "")
		a.log.WithError(err).Warn("hook failed")
		return false, err
	}
	var end outcome
	remove := func() {
		if derr := child.Destroy(lc, destroyWait); derr != nil {
			a.log.WithError(derr).WithField("hook", hook.Path).Warn("remove the container of a hook")
		}
	}
	defer func() {
		if end.stuck {
			go remove() // its start holds libcontainer's lock
			return
		}
		remove()
	}()
	var fault error
	end = a.runBounded(ctx, hook.Timeout, proc, func(ctx context.Context) error {
		if err := a.children.Start(ctx, lc, proc); err != nil {
			return err
		}
		if process, err := child.ProcOf(proc); err == nil {
			fault = inspectProgram(process, hook.Path)
			process.Close()
		}
		err := lc.Exec()
		if err != nil {
			err = errors.Join(err, proc.Signal(unix.SIGKILL))
			_, _ = a.children.Wait(proc) // its status says only that it was killed
		}
		return err
	})
	return end.started, a.report(hook, option, end, func() error { return fault })
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/oci"

	"containerd-shim-rich/child"

	"containerd-shim-rich/bundle"
)

const (
	// aloneDir is libcontainer's state directory, in the bundle, of
	// containers that run one hook.
	aloneDir = "hook"
	// aloneSuffix tells the cgroup of such a container from the other's.
	aloneSuffix = "-poststop"
	// orphanTimeout is how much of the time that containerd gives the
	// clean-up after a shim is there for hooks. Those of the host have
	// hooksWait of it.
	orphanTimeout = 3500 * time.Millisecond
)

// alone runs hooks in containers of their own, with the files and the limits
// of a container whose pid 1 is gone.
type alone struct {
	*hookSet
	rootfs string
}

// hold keeps the namespaces of a container open that its poststop hooks need
// when it is gone.
func (h *hookSet) hold(pid int) error {
	if len(h.record.Poststop) == 0 || h.spec.Linux == nil {
		return nil
	}
	h.namespaces = map[specs.LinuxNamespaceType]*os.File{}
	for _, ns := range h.spec.Linux.Namespaces {
		name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.UserNamespace: "user"}[ns.Type]
		if name == "" || ns.Path != "" {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			h.release()
			return err
		}
		h.namespaces[ns.Type] = f
	}
	return nil
}

// release lets the namespaces go.
func (h *hookSet) release() {
	for _, f := range h.namespaces {
		f.Close()
	}
	h.namespaces = nil
}

// container is a container for one hook.
func (a alone) container(hook config.Hook) (*libcontainer.Container, *libcontainer.Process, error) {
	spec := *a.spec
	spec.Hooks = nil
	spec.Process = a.process(hook, hooks.Poststop)
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

// run runs one hook.
func (a alone) run(ctx context.Context, hook config.Hook) (started bool, err error) {
	lc, proc, err := a.container(hook)
	if err != nil {
		err = hookError(hooks.Poststop, hook.Path, fmt.Errorf("create a container for it: %w", err), "")
		a.log.WithError(err).Warn("hook failed")
		return false, err
	}
	var end hookEnd
	remove := func() {
		if derr := destroy(lc); derr != nil {
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
	return end.started, a.report(hook, hooks.Poststop, end, func() error { return fault })
}

// orphanHooks runs the poststop hooks that a shim which is gone has left, and
// notes for those of the host how the CMD ended. The container is gone as
// well. began is when the clean-up did.
func orphanHooks(b bundle.Bundle, id string, m *bundle.Made, exit bundle.Exit, began time.Time, children *child.Children) error {
	h := &hookSet{id: id, bundle: b, children: children, log: log.L.WithField("container", id)}
	unread := b.Load(hooksFile, &h.record)
	if errors.Is(unread, os.ErrNotExist) {
		unread = nil
	}
	if unread != nil {
		// Which of them have run is not known: none is run once more.
		unread = fmt.Errorf("%s: %w", hooksFile, unread)
		h.record = hookRecord{}
	}
	e := hooks.Ending{Code: exit.Status, Reason: hooks.ReasonLost}
	if !h.record.Started.IsZero() {
		e.Duration = exit.At.Sub(h.record.Started)
	}
	if h.record.Ending != nil {
		e = *h.record.Ending
	}
	if _, told := m.State.Annotations[hooks.AnnotationReason]; !told {
		m.State = annotated(m.State, e)
	}
	if c, err := libcontainer.Load(b.Path(aloneDir), id); err == nil {
		if err := destroy(c); err != nil {
			return errors.Join(unread, fmt.Errorf("end a hook: %w", err))
		}
	}
	if unread != nil {
		return unread
	}
	if !h.record.Due || h.record.Next >= len(h.record.Poststop) {
		return nil
	}
	var err error
	if h.spec, err = oci.Load(string(b)); err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	limit := orphanTimeout
	if len(m.Poststop) > 0 {
		limit -= hooksWait
	}
	ctx, cancel := context.WithDeadlineCause(context.Background(), began.Add(limit),
		fmt.Errorf("it had not ended when the %v were over that there are after the shim has been killed", limit))
	defer cancel()
	h.poststop(ctx, e, never, alone{hookSet: h, rootfs: m.Rootfs}.run)
	return nil
}

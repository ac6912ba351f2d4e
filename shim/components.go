package shim

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launcher"
	"containerd-shim-rich/logs"
)

// componentsDir holds, in a bundle, the directories of the components.
const componentsDir = "components"

// maxComponents bounds how many a container may have: each has a
// connection, and a line in some inits' files.
const maxComponents = 16

// chooseComponents reads the definitions of the components that a container
// is to have. The sandbox of a pod has none.
func chooseComponents(spec *specs.Spec, o config.Options) ([]*components.Definition, error) {
	if initmode.IsSandbox(spec.Annotations) {
		return nil, nil
	}
	var chosen []*components.Definition
	for _, by := range []struct {
		source string
		names  []string
	}{{o.AlwaysComponentsSource, o.AlwaysComponents}, {o.ComponentsSource, o.Components}} {
		for _, name := range by.names {
			if slices.ContainsFunc(chosen, func(d *components.Definition) bool { return d.Name == name }) {
				continue
			}
			d, err := components.Load(components.Dir, name)
			if err != nil {
				return nil, withClass(fmt.Errorf("%s: %w", by.source, err), errdefs.ErrInvalidArgument)
			}
			chosen = append(chosen, d)
		}
	}
	if len(chosen) > maxComponents {
		return nil, fmt.Errorf("components: %d are chosen, at most %d can be: %w", len(chosen), maxComponents, errdefs.ErrInvalidArgument)
	}
	return chosen, nil
}

// exposeComponents makes the directories of the components visible in the
// bundle, from where the container gets them.
func (b *builder) exposeComponents(ours *hostfs.Dir) error {
	dir := b.bundle.Path(componentsDir)
	for _, comp := range b.plan.Components {
		file := filepath.Join(components.Dir, comp.Name+".toml")
		if comp.Log == components.LogSyslog && b.plan.Init == config.InitDumbInit {
			return fmt.Errorf("%s: log: value %q: init %q starts no syslog; use %q or %q: %w",
				file, comp.Log, b.plan.Init, components.LogFile, components.LogContainer, errdefs.ErrInvalidArgument)
		}
		if comp.Directory == "" {
			continue
		}
		if info, err := os.Stat(comp.Directory); err != nil || !info.IsDir() {
			return fmt.Errorf("%s: directory: value %q: the host has no such directory; make it, or correct the path: %w",
				file, comp.Directory, errdefs.ErrInvalidArgument)
		}
		target := filepath.Join(dir, comp.Name)
		if err := ours.MkdirAll(path.Join(componentsDir, comp.Name), 0o711); err != nil {
			return err
		}
		if err := exposeReadOnly(comp.Directory, target); err != nil {
			// A mount of its own, which is no more than read-only: a
			// container that may mount can undo that.
			if err := bindReadOnly(comp.Directory, target); err != nil {
				return fmt.Errorf("%s: directory: value %q: mount it: %w", file, comp.Directory, err)
			}
		}
	}
	return nil
}

func bindReadOnly(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// addComponents makes what the components of the plan need on the host. root of
// the container is uid and gid.
func (b *builder) addComponents(uid, gid int) error {
	if len(b.plan.Components) == 0 {
		return nil
	}
	b.components = launcher.NewComponents(b.life)
	for _, planned := range b.plan.Components {
		to, err := b.openLog(planned)
		if err != nil {
			return fmt.Errorf("log of component %s: %w", planned.Name, err)
		}
		if err := b.components.Add(planned, to, uid, gid, b.log, b.crashed); err != nil {
			return err
		}
	}
	return nil
}

// openLog opens what takes the output of a component, nil if that is the syslog
// in the container.
func (b *builder) openLog(c initmode.Component) (logs.Writer, error) {
	switch c.Log {
	case components.LogContainer:
		fds, end, err := b.init.io.Anew()
		if err != nil {
			return nil, err
		}
		return logs.NewStreams(c.Name, fds, end), nil
	case components.LogSyslog:
		return nil, nil
	}
	return logs.OpenFile(b.made.Logs, c.Name, c.LogSize)
}

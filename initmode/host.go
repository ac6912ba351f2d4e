package initmode

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What an init of a machine would do to the host if its container is let: one
// that is privileged, or shares a namespace with the host.

// hostSysctls are what systemd raises at its start, in a container as well,
// where the spec lets it. Those of the network only count if that is the host's.
func (req *Request) hostSysctls() []string {
	paths := []string{"/proc/sys/fs/file-max", "/proc/sys/fs/nr_open"}
	if req.HostNetwork {
		paths = append(paths, "/proc/sys/net/unix/max_dgram_qlen")
	}
	return slices.DeleteFunc(paths, func(p string) bool {
		for ; p != "/"; p = path.Dir(p) {
			if slices.Contains(req.Spec.Linux.ReadonlyPaths, p) {
				return true
			}
		}
		return false
	})
}

// DgramQueue is how many datagrams a socket of a machine queues at least, since
// its systemd says so at the boot (bump_unix_max_dgram_qlen in systemd's
// src/core/main.c). The kernel's default is 10: with that, journald drops what
// syslogd does not read at once.
const DgramQueue = 512

// raiseDgramQueue does it for a systemd that may not change settings itself. The
// kernel keeps the setting from a user namespace (net/unix/sysctl_net_unix.c).
func (p *Plan) raiseDgramQueue(req *Request) {
	const key = "net.unix.max_dgram_qlen"
	spec := req.Spec
	_, set := spec.Linux.Sysctl[key]
	_, slashes := spec.Linux.Sysctl[strings.ReplaceAll(key, ".", "/")]
	if set || slashes || req.HostNetwork || Namespace(spec, specs.UserNamespace) != nil {
		return
	}
	p.Sysctl = map[string]string{key: strconv.Itoa(DgramQueue)}
}

// keepHostname hides the image's /etc/hostname where the name is not the
// container's own.
func (p *Plan) keepHostname(req *Request) error {
	if !sharesHostname(req.Spec) {
		return nil
	}
	const file = "/etc/hostname"
	resolved, err := req.Rootfs.Resolve(file)
	if err != nil {
		return fmt.Errorf("%s of the root file system: %w; make it a file", file, err)
	}
	if !req.Rootfs.Exists(resolved) {
		return nil
	}
	p.Files = append(p.Files, File{Path: "hostname", Mode: 0o444})
	m := bindReadOnly(path.Join(req.RunDir, "hostname"), file, "noexec")
	m.Resolved, m.Keep = resolved, true
	p.Mounts = append(p.Mounts, m)
	return nil
}

// sharesHostname reports whether the host or another container has the same
// hostname.
func sharesHostname(spec *specs.Spec) bool {
	ns := Namespace(spec, specs.UTSNamespace)
	return ns == nil || ns.Path != ""
}

// Namespace is the spec's entry for a kind of namespace, nil if the container
// has the host's.
func Namespace(spec *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	i := slices.IndexFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
	if i < 0 {
		return nil
	}
	return &spec.Linux.Namespaces[i]
}

// hostCapabilities let a container change what is the host's.
var hostCapabilities = []string{"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_TIME"}

func isPrivileged(spec *specs.Spec) bool {
	c := spec.Process.Capabilities
	return c != nil && slices.ContainsFunc(hostCapabilities, func(name string) bool { return slices.Contains(c.Bounding, name) })
}

// spareTerminals keeps logind, which takes one for itself (logind.conf(5),
// ReserveVT=), from the host's virtual terminals. at is the directory of our
// files; where /run is a volume, nothing is mounted there but by the unit, for
// itself.
func (p *Plan) spareTerminals(req *Request, at string) {
	if !isPrivileged(req.Spec) {
		return
	}
	const conf = "/run/systemd/logind.conf.d/rich.conf"
	p.Files = append(p.Files, text("logind.conf", "[Login]", "NAutoVTs=0", "ReserveVT=0"))
	if path.Dir(at) != "/run" {
		p.Files = append(p.Files, text("units/systemd-logind.service.d/rich.conf", "[Service]", "BindReadOnlyPaths="+path.Join(at, "logind.conf")+":"+conf))
		return
	}
	p.Mounts = append(p.Mounts, bindReadOnly(path.Join(req.RunDir, "logind.conf"), conf, "noexec"))
}

// hostScripts are init scripts of Debian and of OpenRC that would set the
// host's clock, modules, devices, sysctls, swap and keyboard, or the hostname,
// if the container is let. systemd's units are masked in any case.
func hostScripts(spec *specs.Spec) []string {
	var names []string
	if sharesHostname(spec) {
		names = append(names, "hostname", "hostname.sh")
	}
	if isPrivileged(spec) {
		names = append(names,
			"hwclock", "hwclock.sh", "swclock", "osclock",
			"udev", "eudev", "mdev", "hwdrivers", "kmod", "modules", "modules-load",
			"procps", "sysctl", "swap", "umountfs",
			"console-setup.sh", "keyboard-setup", "keyboard-setup.sh", "keymaps", "save-keymaps", "loadkmap", "consolefont", "brightness",
		)
	}
	return names
}

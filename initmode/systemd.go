package initmode

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// haltSystemd is SIGRTMIN+3: start halt.target (systemd(1), SIGNALS). The
// kernel numbers real-time signals from 32, glibc keeps two for itself.
const haltSystemd = syscall.Signal(34 + 3)

// systemd makes the image's systemd pid 1 (systemd.io/CONTAINER_INTERFACE).
type systemd struct {
	found found
	// own says that the CMD itself is systemd: nothing is relocated.
	own bool
}

// checkSystemd says why this systemd cannot run on this host's cgroups.
func checkSystemd(req *Request, f found) error {
	switch {
	case req.Cgroups == CgroupLegacy:
		return fmt.Errorf("cgroups: the host mounts no cgroup2 hierarchy, which systemd needs in a container; " +
			"mount one at /sys/fs/cgroup/unified, or set init to \"" + config.InitDumbInit + "\"")
	case f.version != 0 && f.version < 230:
		return fmt.Errorf("%s: systemd %d does not know cgroup2, which it would be given; use an image with systemd 230 or newer, or set init to %q",
			f.path, f.version, config.InitDumbInit)
	}
	return nil
}

func (s systemd) plan(req *Request, p *Plan) error {
	if err := checkSystemd(req, s.found); err != nil {
		return err
	}
	at, err := p.dir(req)
	if err != nil {
		return err
	}
	p.Halt = haltSystemd
	p.PrivateCgroup = true
	process := *req.Spec.Process
	process.Env = s.env(req, at)
	if !s.own {
		if p.Service, err = record(req); err != nil {
			return err
		}
		p.Console = true
		process.Terminal = false
		process.ConsoleSize = nil
		process.User = specs.User{}
		process.NoNewPrivileges = false
		process.Scheduler = nil
		process.IOPriority = nil
		process.ExecCPUAffinity = nil
		process.Capabilities = managerCapabilities(process.Capabilities)
		process.Rlimits = managerLimits(process.Rlimits, req.Limits)
		// In a container the arguments are read like the kernel's command
		// line (systemd(1)): a left-over /etc/fstab of an image made for
		// machines would send the boot into emergency mode.
		process.Args = []string{s.found.path, "--unit=rich.target", "fstab=no", "systemd.show_status=1"}
	}
	p.Process = &process
	p.Files = append(p.Files,
		File{Path: "launch", Mode: 0o755}, // mount point for the launcher
		File{Path: "machine-id", Mode: 0o444, Data: []byte(req.MachineID + "\n")},
	)
	p.Files = append(p.Files, s.units(at, p.Service)...)
	return s.mounts(req, p, at)
}

// managerCapabilities are pid 1's: all that the container may have, since
// its services get theirs from it. What the CMD has less is the launcher's
// business.
func managerCapabilities(c *specs.LinuxCapabilities) *specs.LinuxCapabilities {
	if c == nil {
		return nil
	}
	return &specs.LinuxCapabilities{
		Bounding:    c.Bounding,
		Effective:   c.Bounding,
		Permitted:   c.Bounding,
		Inheritable: c.Inheritable,
	}
}

// managerLimits are pid 1's: the CMD's would hurt it (RLIMIT_CPU kills), but
// where the CMD is to have a higher hard limit than the runtime's own, pid 1
// must have it too, as it may lack the capability to raise it later.
func managerLimits(want []specs.POSIXRlimit, have []launch.Rlimit) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, w := range want {
		for _, h := range have {
			if rlimitTypes[w.Type] == h.Resource && w.Hard > h.Hard {
				out = append(out, specs.POSIXRlimit{Type: w.Type, Soft: max(h.Soft, min(w.Soft, w.Hard)), Hard: w.Hard})
			}
		}
	}
	return out
}

// env is pid 1's environment. Services can pick variables of the container
// from it with PassEnvironment=; what would change systemd itself is left
// out.
func (s systemd) env(req *Request, at string) []string {
	env := slices.DeleteFunc(config.WithoutPouch(req.Spec.Process.Env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "container", "container_uuid", "TERM", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES":
			return true
		}
		return strings.HasPrefix(name, "SYSTEMD_") || !s.own && strings.HasPrefix(name, "LD_")
	})
	// TERM: the console is a log, to which escape sequences and questions
	// about the terminal's size (systemd 257) would be noise.
	return append(env,
		"container=rich",
		"container_uuid="+req.MachineID,
		"SYSTEMD_UNIT_PATH="+path.Join(at, "units")+":",
		"TERM=dumb",
	)
}

// masked units cannot do their work in a container, would act on the host's
// devices and settings if it is privileged, or would write to the image.
var masked = []string{
	"autovt@.service",
	"console-getty.service",
	"container-getty@.service",
	"getty@.service",
	"serial-getty@.service",
	"getty-static.service",
	"console-setup.service",
	"keyboard-setup.service",
	"systemd-vconsole-setup.service",
	"systemd-udevd.service",
	"systemd-udevd-control.socket",
	"systemd-udevd-kernel.socket",
	"systemd-udevd-varlink.socket",
	"systemd-udev-trigger.service",
	"systemd-udev-settle.service",
	"systemd-udev-load-credentials.service",
	"systemd-modules-load.service",
	"systemd-sysctl.service",
	"modprobe@.service",
	"kmod-static-nodes.service",
	"dev-hugepages.mount",
	"dev-mqueue.mount",
	"sys-kernel-config.mount",
	"sys-kernel-debug.mount",
	"sys-kernel-tracing.mount",
	"sys-fs-fuse-connections.mount",
	"proc-sys-fs-binfmt_misc.automount",
	"proc-sys-fs-binfmt_misc.mount",
	"run-lock.mount",
	"tmp.mount",
	"systemd-remount-fs.service",
	"systemd-machine-id-commit.service",
	"systemd-firstboot.service",
	"systemd-journald-audit.socket",
	"systemd-networkd-wait-online.service",
	"NetworkManager-wait-online.service",
	"ldconfig.service",
	"systemd-hwdb-update.service",
	"systemd-boot-update.service",
	"systemd-pcrphase.service",
	"systemd-pcrphase-sysinit.service",
	"systemd-tpm2-setup.service",
	"systemd-tpm2-setup-early.service",
	"e2scrub_reap.service",
	"e2scrub_all.timer",
	"fstrim.timer",
}

// units are the files of the unit directory that goes before the image's
// own. They hold nothing of the container's command, so nothing needs to be
// quoted.
func (s systemd) units(at string, service *launch.Record) []File {
	files := make([]File, 0, len(masked)+6)
	for _, name := range masked {
		files = append(files, File{Path: "units/" + name, Mode: fs.ModeSymlink, Link: "/dev/null"})
	}
	launcher := path.Join(at, "launch")
	files = append(files,
		text("units/rich-reboot.service",
			"[Unit]",
			"Description=Tell the runtime about the reboot",
			"DefaultDependencies=no",
			"Before=reboot.target systemd-reboot.service final.target",
			"",
			"[Service]",
			"Type=oneshot",
			"ExecStart="+launcher+" event reboot",
			"TimeoutStartSec=5",
		),
		File{Path: "units/reboot.target.wants/rich-reboot.service", Mode: fs.ModeSymlink, Link: "../rich-reboot.service"},
	)
	if service == nil {
		return files
	}
	lines := []string{
		"[Unit]",
		"Description=Command of the container",
		// The default Requires=sysinit.target would let a broken service
		// of the image keep the CMD from starting.
		"DefaultDependencies=no",
		"Wants=basic.target",
		"After=basic.target",
		"Conflicts=shutdown.target",
		"Before=shutdown.target",
		"IgnoreOnIsolate=yes",
		"",
		"[Service]",
		"ExecStart=" + launcher + " app",
		// Only the launcher is asked to stop: it passes the CMD's own stop
		// signal on.
		"KillMode=mixed",
		"IgnoreSIGPIPE=no",
		// The limits of the container are the limits of the CMD.
		"TasksMax=infinity",
		"OOMPolicy=continue",
	}
	files = append(files,
		text("units/rich-app.service", append(lines, limitLines(service.Rlimits)...)...),
		text("units/rich.target",
			"[Unit]",
			"Description=Rich container",
			"Wants=default.target rich-app.service",
			"AllowIsolate=yes",
		),
	)
	return files
}

// limitNames are the directives for limits that a service does not simply
// inherit from pid 1, or that an image's system.conf may lower.
var limitNames = map[int]string{
	unix.RLIMIT_AS:         "LimitAS",
	unix.RLIMIT_CORE:       "LimitCORE",
	unix.RLIMIT_DATA:       "LimitDATA",
	unix.RLIMIT_FSIZE:      "LimitFSIZE",
	unix.RLIMIT_LOCKS:      "LimitLOCKS",
	unix.RLIMIT_MEMLOCK:    "LimitMEMLOCK",
	unix.RLIMIT_MSGQUEUE:   "LimitMSGQUEUE",
	unix.RLIMIT_NOFILE:     "LimitNOFILE",
	unix.RLIMIT_NPROC:      "LimitNPROC",
	unix.RLIMIT_RSS:        "LimitRSS",
	unix.RLIMIT_SIGPENDING: "LimitSIGPENDING",
	unix.RLIMIT_STACK:      "LimitSTACK",
}

// limitLines keep the hard limits high enough for the launcher to set the
// CMD's; the soft ones are its own affair.
func limitLines(limits []launch.Rlimit) []string {
	var lines []string
	for _, l := range limits {
		name, ok := limitNames[l.Resource]
		if !ok {
			continue
		}
		value := "infinity"
		if l.Hard != unix.RLIM_INFINITY {
			value = fmt.Sprint(l.Hard)
		}
		lines = append(lines, name+"="+value)
	}
	slices.Sort(lines)
	return lines
}

func text(name string, lines ...string) File {
	return File{Path: name, Mode: 0o644, Data: []byte(strings.Join(lines, "\n") + "\n")}
}

func (s systemd) mounts(req *Request, p *Plan, at string) error {
	cgroup := specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime", "rw"},
	}
	if req.Cgroups == CgroupHybrid {
		// The v1 controllers hold the limits, outside; inside, systemd
		// gets the v2 hierarchy, which its newest versions insist on.
		cgroup.Type = "cgroup2"
	}
	p.Mounts = append(p.Mounts, Mount{Mount: cgroup, Resolved: "/sys/fs/cgroup"})

	size := runSize(req)
	copyup, err := req.Rootfs.copyable("/run", size/2)
	if err != nil {
		return err
	}
	p.Mounts = append(p.Mounts, tmpfs("/run", "755", size, copyup))
	// Debian's systemd gives up if it has to mount this itself and may not.
	p.Mounts = append(p.Mounts, tmpfs("/run/lock", "1777", 5<<20, false))
	if req.Rootfs.IsDir("/var/run") {
		// On a machine this is a link to /run, so services expect what
		// they leave there to be gone at the next start.
		if copyup, err = req.Rootfs.copyable("/var/run", size/2); err != nil {
			return err
		}
		p.Mounts = append(p.Mounts, tmpfs("/var/run", "755", size, copyup))
	}
	p.Mounts = append(p.Mounts,
		bindReadOnly(req.RunDir, at),
		bindReadOnly(req.Launcher, path.Join(at, "launch")),
	)
	machineID, err := req.Rootfs.Resolve("/etc/machine-id")
	if err != nil {
		return fmt.Errorf("/etc/machine-id of the root file system: %w; make it a file", err)
	}
	id := bindReadOnly(path.Join(req.RunDir, "machine-id"), "/etc/machine-id", "noexec")
	id.Resolved, id.Keep = machineID, true
	p.Mounts = append(p.Mounts, id)
	return nil
}

// tmpfs is a mount that yields to what the user mounts at the same place.
func tmpfs(destination, mode string, size int64, copyup bool) Mount {
	m := Mount{
		Mount: specs.Mount{
			Destination: destination, Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "strictatime", "mode=" + mode, fmt.Sprintf("size=%d", size)},
		},
		Resolved: destination,
		Keep:     true,
	}
	if copyup {
		m.Options = append(m.Options, "tmpcopyup")
	}
	return m
}

// runSize bounds the tmpfs at /run in bytes: systemd's journal alone would
// take a share of whatever it finds.
func runSize(req *Request) int64 {
	const limit = 256 << 20
	if req.Options.RunSize > 0 {
		return req.Options.RunSize
	}
	if r := req.Spec.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		return max(1<<20, min(limit, *r.Memory.Limit/2))
	}
	return limit
}

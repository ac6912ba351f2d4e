package initmode

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	systemdunit "github.com/coreos/go-systemd/v22/unit"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// haltSystemd is SIGRTMIN+3: start halt.target (systemd(1), SIGNALS). The
// kernel numbers real-time signals from 32, glibc keeps two for itself.
const haltSystemd = syscall.Signal(34 + 3)

// containerManager is what systemd calls this runtime.
const containerManager = "rich"

// NotifySocket is where systemd tells how far it is (sd_notify(3)), in RunDir.
const NotifySocket = "notify.sock"

// systemd makes the image's systemd pid 1 (systemd.io/CONTAINER_INTERFACE).
type systemd struct {
	found found
	// own says that the command itself is systemd: nothing is relocated.
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
	// In a container the arguments are read like the kernel's command line
	// (systemd(1)): a left-over /etc/fstab of an image made for machines
	// would send the boot into emergency mode.
	args := []string{s.found.path, "--unit=rich.target", "fstab=no", "systemd.show_status=1"}
	if err := p.manage(req, s.own, s.env(req, at), args); err != nil {
		return err
	}
	cgroup := specs.Mount{
		Destination: cgroupDir, Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime", "rw"},
	}
	if req.Cgroups == CgroupHybrid {
		// The v1 controllers hold the limits, outside; inside, systemd
		// gets the v2 hierarchy, which its newest versions insist on.
		cgroup.Type = "cgroup2"
	}
	p.Mounts = append(p.Mounts, Mount{Mount: cgroup, Resolved: cgroupDir})
	p.ReadonlyPaths = req.hostSysctls()
	p.raiseDgramQueue(req)
	if err := p.keepHostname(req); err != nil {
		return err
	}
	if err := p.mountRun(req, at); err != nil {
		return err
	}
	p.hostInterface(req)
	p.Notify = true
	p.spareTerminals(req, at)
	if err := p.mountMachineID(req); err != nil {
		return err
	}
	wanted := make([]string, len(req.Options.Services))
	for i, service := range req.Options.Services {
		if wanted[i], err = p.findUnit(req, service); err != nil {
			return err
		}
	}
	masks := p.masks(req, wanted)
	for i, unit := range wanted {
		if slices.Contains(masks, unit) {
			return bothMasked(req, req.Options.Services[i])
		}
	}
	p.Files = append(p.Files, s.units(req, p, at, wanted, masks)...)
	return nil
}

// env is pid 1's environment. Services can pick variables of the container
// from it with PassEnvironment=.
func (s systemd) env(req *Request, at string) []string {
	env := managerEnv(req, s.own, "SYSTEMD_",
		"container", "container_uuid", "TERM", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
	// TERM: the console is a log, to which escape sequences and questions
	// about the terminal's size (systemd 257) would be noise.
	return append(env,
		"container="+containerManager,
		"NOTIFY_SOCKET="+path.Join(at, NotifySocket),
		"container_uuid="+req.MachineID,
		"SYSTEMD_UNIT_PATH="+path.Join(at, "units")+":",
		"TERM=dumb",
	)
}

// masked units cannot do their work in a container, would act on the host's
// devices and settings if it is privileged, or would write to the image. One
// that the option services names is not masked.
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
func (s systemd) units(req *Request, p *Plan, at string, wanted, masks []string) []File {
	files := make([]File, 0, len(masks)+6)
	for _, name := range masks {
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
	files = append(files, keepMounts(p.Mounts)...)
	if req.HostNetwork && !slices.ContainsFunc(wanted, func(unit string) bool { return strings.HasPrefix(unit, netplanPrefix) }) {
		files = append(files, text("units/"+netplanUnits+"/rich.conf", "[Unit]", "ConditionPathExists=!/"))
	}
	files = append(files, stateUnits(req.Rootfs, launcher)...)
	files = append(files, keepTemporary(req.Rootfs, p.Destinations)...)
	files = append(files, s.componentUnits(req, p, launcher)...)
	if len(wanted) > 0 {
		files = append(files, serviceUnits(wanted)...)
	}
	if p.Service == nil {
		if len(wanted) > 0 {
			files = append(files, text("units/default.target.d/rich.conf", "[Unit]", "Wants="+servicesTarget))
		}
		return files
	}
	before := "basic.target"
	if len(wanted) > 0 {
		before += " " + servicesTarget
	}
	lines := []string{
		"[Unit]",
		"Description=Command of the container",
		// The default Requires=sysinit.target would let a broken service
		// of the image keep the command from starting.
		"DefaultDependencies=no",
		"Wants=" + before,
		"After=" + before,
		"Conflicts=shutdown.target",
		"Before=shutdown.target",
		"IgnoreOnIsolate=yes",
		"OnFailure=rich-failed.service",
		"",
		"[Service]",
		"ExecStart=" + launcher + " app",
		// Only the launcher is asked to stop: it passes the command's own stop
		// signal on.
		"KillMode=mixed",
		"IgnoreSIGPIPE=no",
		// The limits of the container are the limits of the command.
		"TasksMax=infinity",
		"OOMPolicy=continue",
	}
	files = append(files,
		text("units/rich-app.service", append(lines, limitLines(p.Service.Rlimits, req.Limits)...)...),
		text("units/rich-failed.service",
			"[Unit]",
			"Description=Tell the runtime that the command could not be started",
			"DefaultDependencies=no",
			"",
			"[Service]",
			"Type=oneshot",
			"ExecStart="+launcher+" event failed",
		),
		text("units/rich.target",
			"[Unit]",
			"Description=Rich container",
			"Wants=default.target rich-app.service",
			"AllowIsolate=yes",
		),
	)
	return files
}

// keepMounts keeps systemd from unmounting at the shutdown what was mounted for
// it. With CAP_SYS_ADMIN it would take the launcher away while units still use
// it, and without it fails at each, in a process of its own.
func keepMounts(mounts []Mount) []File {
	var files []File
	seen := map[string]bool{}
	for _, m := range mounts {
		name := systemdunit.UnitNamePathEscape(m.Resolved) + ".mount"
		// For a path that is too long for a name systemd has another one.
		if seen[name] || slices.Contains(masked, name) || len(name) > maxUnitName-len(".d") {
			continue
		}
		seen[name] = true
		files = append(files, text("units/"+name+".d/rich.conf", "[Unit]", "DefaultDependencies=no"))
	}
	return files
}

// keepTemporary keeps the boot from emptying /tmp, as Debian's does, and the
// daily cleaning from a volume there: a machine's temporary files are its
// own, a volume is not.
func keepTemporary(r *Rootfs, destinations []string) []File {
	program := systemdProgram(r, "systemd-tmpfiles")
	if program == "" {
		return nil
	}
	dropIn := func(unit, args string) File {
		return text("units/"+unit+".d/rich.conf", "[Service]", "ExecStart=", "ExecStart="+program+" "+args)
	}
	files := []File{dropIn("systemd-tmpfiles-setup.service", "--create --boot --exclude-prefix=/dev")}
	clean := "--clean"
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		if slices.ContainsFunc(destinations, func(d string) bool { return Within(d, dir) }) {
			clean += " --exclude-prefix=" + dir
		}
	}
	if clean != "--clean" {
		files = append(files, dropIn("systemd-tmpfiles-clean.service", clean))
	}
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

// limitLines give the launcher what pid 1 has: enough to set the command's
// limits, and not so little that it is bound by them itself.
func limitLines(limits, have []launch.Rlimit) []string {
	var lines []string
	for _, l := range limits {
		name, ok := limitNames[l.Resource]
		if !ok {
			continue
		}
		hard := l.Hard
		for _, h := range have {
			if h.Resource == l.Resource {
				hard = max(hard, h.Hard)
			}
		}
		value := "infinity"
		if hard != unix.RLIM_INFINITY {
			value = fmt.Sprint(hard)
		}
		lines = append(lines, name+"="+value)
	}
	slices.Sort(lines)
	return lines
}

package initmode_test

import (
	"maps"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/initmode"
)

const elf = "\x7fELF\x02\x01\x01"

// debian is a root file system with systemd, as MakeRootfs takes it.
var debian = map[string]string{
	"lib":                     "->usr/lib",
	"sbin":                    "->usr/sbin",
	"usr/sbin/init":           "->/lib/systemd/systemd",
	"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so",
	"bin/sh":                  elf,
	"run":                     "/",
	"var/run":                 "->/run",
	"etc/machine-id":          "->/run/machine-id",
}

// inits are root file systems whose /sbin/init is another one.
var inits = map[string]map[string]string{
	"sysvinit": {
		"sbin/init": elf + "INIT_VERSION=sysvinit-3.06", "etc/machine-id": "",
		"etc/inittab": "# Debian's\nid:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n~~:S:wait:/sbin/sulogin --force\n" +
			"l0:0:wait:/etc/init.d/rc 0\nl2:2:wait:/etc/init.d/rc 2\nl6:6:wait:/etc/init.d/rc 6\nz6:6:respawn:/sbin/sulogin --force\n" +
			"ca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now\npf::powerwait:/etc/init.d/powerfail start\n" +
			"1:2345:respawn:/sbin/getty --noclear 38400 tty1\nx:2345:respawn:/usr/bin/monitor\n",
	},
	"busybox": {"bin/busybox": elf + "BusyBox v1.36.1", "sbin/init": "->/bin/busybox", "etc/init.d/rcS": "#!/bin/sh"},
	"alpine": {
		"bin/busybox": elf + "BusyBox v1.36.1", "sbin/init": "->/bin/busybox", "sbin/openrc": elf,
		"etc/inittab": "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\ntty1::respawn:/sbin/getty 38400 tty1\n" +
			"::respawn:/sbin/syslogd -n\n::askfirst:/bin/sh\n::ctrlaltdel:/sbin/reboot\n::shutdown:/sbin/openrc shutdown",
	},
	"openrc": {
		"sbin/openrc-init": elf + "/run/openrc/init.ctl", "sbin/init": "->openrc-init", "sbin/openrc": elf, "etc/init.d/agetty": "#!/sbin/openrc-run",
		"etc/init.d/agetty.tty1": "->agetty", "etc/runlevels/default/agetty.tty1": "->/etc/init.d/agetty.tty1",
	},
	"runit-debian": {
		"lib/runit/runit-init": elf + "runit.stopit\x00/run/runit.stopit\x00/etc/runit/1", "sbin/init": "->/lib/runit/runit-init", "etc/runit/3": "#!/bin/sh\n",
		"etc/service": "->runit/runsvdir/default", "etc/runit/runsvdir/default/getty-tty1": "->/etc/sv/getty-tty1", "etc/sv/getty-tty1/run": "#!/bin/sh",
	},
	"runit": {"sbin/init": elf + "/etc/runit/1\x00/etc/runit/stopit", "service": "/"},
}

// with is a root file system with more files.
func with(base, more map[string]string) map[string]string {
	files := maps.Clone(base)
	maps.Copy(files, more)
	return files
}

// without is a root file system that lacks some files.
func without(base map[string]string, names ...string) map[string]string {
	files := maps.Clone(base)
	for _, name := range names {
		delete(files, name)
	}
	return files
}

func bind(destination string, options ...string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "bind", Source: "/var/lib/kubelet/x", Options: append([]string{"rbind"}, options...)}
}

// basicCases are containers that neither ask for services nor have components.
var basicCases = []planCase{
	{name: "none", options: map[string]string{"init": "none"}},
	{name: "dumb-init", options: map[string]string{"init": "dumb-init"}},
	{name: "auto-systemd"},
	{name: "auto-without-systemd", rootfs: map[string]string{"bin/sh": elf}},
	{name: "auto-not-root", change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{name: "auto-shared-pid", change: func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/4242/ns/pid" }},
	{name: "auto-legacy-cgroups", cgroups: initmode.CgroupLegacy},
	{name: "auto-cmd-is-systemd", change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init", "--log-level=info"} }},
	{
		name: "auto-cmd-is-tini", rootfs: with(debian, map[string]string{"usr/bin/tini": elf}),
		change: func(s *specs.Spec) { s.Process.Args = []string{"/usr/bin/tini", "--", "sh"} },
	},
	{name: "systemd-hybrid-cgroups", options: map[string]string{"init": "systemd"}, cgroups: initmode.CgroupHybrid},
	{name: "sbin-init", options: map[string]string{"init": "sbin-init"}},
	{name: "sbin-init-sysvinit", options: map[string]string{"init": "sbin-init"}, rootfs: inits["sysvinit"]},
	{name: "sbin-init-busybox", options: map[string]string{"init": "sbin-init"}, rootfs: inits["busybox"]},
	{name: "sbin-init-openrc", options: map[string]string{"init": "sbin-init"}, rootfs: inits["openrc"]},
	{name: "sbin-init-runit", options: map[string]string{"init": "sbin-init"}, rootfs: inits["runit"]},
	{name: "sbin-init-runit-of-debian", options: map[string]string{"init": "sbin-init"}, rootfs: inits["runit-debian"]},
	{name: "auto-busybox-with-openrc", rootfs: inits["alpine"]},
	{name: "auto-busybox-not-root", rootfs: inits["busybox"], change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{name: "auto-inittab-of-the-user", rootfs: inits["busybox"], change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/etc")) }},
	{name: "sbin-init-is-cmd-sysvinit", rootfs: inits["sysvinit"], change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init", "3"} }},
	{name: "sbin-init-is-cmd-openrc", rootfs: inits["openrc"], change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/openrc-init"} }},
	{
		name: "B13-cgroup-mount-absent", change: func(s *specs.Spec) { s.Mounts = s.Mounts[:3] },
	},
	{
		name: "B13-cgroup-bound-by-user", change: func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: "/proc/1/ns/cgroup"})
			s.Mounts[3] = specs.Mount{Destination: "/sys/fs/cgroup", Type: "bind", Source: "/sys/fs/cgroup", Options: []string{"rbind", "ro"}}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup/systemd", Type: "bind", Source: "/sys/fs/cgroup/systemd", Options: []string{"rbind", "rw"}})
		},
	},
	{
		name: "B15-mounts-below-run", change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts,
				bind("/var/run/secrets/kubernetes.io/serviceaccount", "rprivate", "ro"), bind("/run/secrets/db"), bind("/tmp"), bind("/run/app.sock"))
		},
	},
	{
		name: "B15-run-of-the-user", change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bind("/run/lock"), bind("/run"))
		},
	},
	{
		name: "B15-run-of-the-engine", change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}})
		},
	},
	{
		name: "B17-bare-root", rootfs: map[string]string{"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so"},
		change: func(s *specs.Spec) { s.Root.Readonly = true },
	},
	{
		name: "B6-numeric-user", options: map[string]string{"init": "systemd"}, host: `root-init = "explicit"`, change: func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000660000, GID: 0, AdditionalGids: []uint32{2000, 3000}, Umask: new(uint32(63))}
			s.Process.Capabilities.Ambient = []string{"CAP_NET_BIND_SERVICE"}
			s.Process.NoNewPrivileges = true
		},
	},
	{
		name: "B7-limits", change: func(s *specs.Spec) {
			s.Process.OOMScoreAdj = new(985)
			s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CPU", Soft: 5, Hard: 5})
		},
	},
	{
		name: "terminal", change: func(s *specs.Spec) {
			s.Process.Terminal = true
			s.Process.ConsoleSize = &specs.Box{Height: 24, Width: 80}
		},
	},
	{
		name: "run-baked-into-the-image", rootfs: with(without(debian, "run", "var/run"), map[string]string{"run/mysqld/x": "", "var/run/old.pid": "1"}),
	},
	{name: "on-exit-restart-systemd", options: map[string]string{"on-exit": "restart"}},
	{
		name: "on-exit-keep-dumb-init", options: map[string]string{"init": "dumb-init", "on-exit": "keep"}, change: func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{2000}}
			s.Process.Terminal = true
			s.Process.ConsoleSize = &specs.Box{Height: 24, Width: 80}
			s.Process.NoNewPrivileges = true
			s.Process.OOMScoreAdj = new(985)
		},
	},
	{
		name: "auto-cmd-is-tini-on-exit", rootfs: with(debian, map[string]string{"usr/bin/tini": elf}), options: map[string]string{"on-exit": "restart"},
		change: func(s *specs.Spec) { s.Process.Args = []string{"/usr/bin/tini", "--", "sh"} },
	},
	{
		name: "sandbox-on-exit", options: map[string]string{"on-exit": "restart"}, change: func(s *specs.Spec) {
			s.Annotations["io.kubernetes.cri.container-type"] = "sandbox"
		},
	},
	{
		name: "B5-environment", rootfs: map[string]string{
			"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so", "usr/bin/systemctl": elf, "etc/profile.d": "/",
		}, change: func(s *specs.Spec) {
			s.Process.User.UID = 0
			s.Process.Env = []string{
				"PATH=/opt/jdk/bin:/usr/bin", "MSG=it's $5 \"x\" `y`\nnext", "EMPTY=", "HOME=/data", "UID=7", "IFS=,", "a.b=dotted",
				"TWICE=1", "NOTIFY_SOCKET=/evil", "rich_mode=false", "TWICE=2", "1x=digit",
			}
		},
	},
	{name: "login-env-no", options: map[string]string{"login-env": "no"}, rootfs: map[string]string{"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so", "etc/profile.d": "/"}},
	{
		name: "profiles-of-the-user", rootfs: map[string]string{"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so", "etc/profile.d": "/"},
		change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/etc/profile.d"), bind("/run/host/x")) },
	},
	{
		name: "sandbox", options: map[string]string{"init": "systemd"}, change: func(s *specs.Spec) {
			s.Annotations["io.kubernetes.cri.container-type"] = "sandbox"
		},
	},

	// A pod's author gets no more than the pod's security context has.
	{name: "T9-no-new-privileges", change: func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
	{name: "T9-no-new-privileges-allowed", host: `root-init = "explicit"`, change: func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
	{
		name: "T9-no-pod", options: map[string]string{"init": "systemd"}, change: func(s *specs.Spec) {
			clear(s.Annotations)
			s.Process.User.UID, s.Process.NoNewPrivileges = 1000, true
		},
	},
	{name: "error-T9-init", options: map[string]string{"init": "systemd"}, change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{name: "error-T9-sbin-init", options: map[string]string{"init": "sbin-init"}, rootfs: inits["sysvinit"], change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{name: "error-T9-raised", options: map[string]string{"app.root-init": "explicit"}, change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{name: "error-T9-services", options: map[string]string{"services": "cron"}, change: func(s *specs.Spec) { s.Process.User.UID = 1000 }},
	{
		name: "error-T9-init-by-the-image", change: func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.Env = append(s.Process.Env, "rich_mode=true", "rich_mode_launch_manner=systemd")
		},
	},

	// A mount of the user's is kept, or an error.
	{name: "T17-below-our-directory", change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/run/rich/data")) }},
	{name: "T17-at-our-directory", options: map[string]string{"init": "dumb-init"}, change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/run/rich")) }},
	{
		name: "T17-at-our-directory-through-a-link", options: map[string]string{"init": "dumb-init"}, rootfs: map[string]string{"bin/sh": elf, "run": "->/var/run", "var/run": "/"},
		change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/var/run/rich")) },
	},
	{name: "T17-auto-no-place", change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/run/rich"), bind("/dev/rich/x")) }},
	{name: "T17-auto-volumes-at-run-and-dev", change: func(s *specs.Spec) { s.Mounts[1] = bind("/dev"); s.Mounts = append(s.Mounts, bind("/run")) }},
	{name: "T17-auto-cgroups", change: func(s *specs.Spec) { s.Mounts[3] = bind("/sys/fs/cgroup") }},
	{
		name: "T17-auto-cmd-is-systemd", change: func(s *specs.Spec) {
			s.Process.Args = []string{"/sbin/init"}
			s.Mounts = append(s.Mounts, bind("/sys/fs/cgroup/memory"))
		},
	},
	{
		name: "T17-auto-below-a-file-of-ours", rootfs: inits["runit"], change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/service/rich-app/log", Type: "tmpfs", Source: "tmpfs"})
		},
	},

	// What cannot be done is said with the field and the way out.
	{name: "error-on-exit-none", options: map[string]string{"init": "none", "on-exit": "keep"}},
	{name: "error-on-exit-cmd-is-init", options: map[string]string{"on-exit": "restart"}, change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} }},
	{name: "error-no-systemd", options: map[string]string{"init": "systemd"}, rootfs: map[string]string{"bin/sh": elf, "usr/lib/systemd/systemd": "->/bin/sh", "lib/systemd/systemd": "->/gone"}},
	{name: "error-sbin-init-is-unknown", options: map[string]string{"init": "sbin-init"}, rootfs: map[string]string{"sbin/init": "->/usr/bin/s6-svscan", "usr/bin/s6-svscan": elf}},
	{name: "error-sbin-init-is-a-script", options: map[string]string{"init": "sbin-init"}, rootfs: map[string]string{"sbin/init": "#!/bin/sh\n"}},
	{name: "error-inittab-of-the-user", options: map[string]string{"init": "sbin-init"}, rootfs: inits["busybox"], change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/etc/inittab")) }},
	{
		name: "error-inittab-too-large", options: map[string]string{"init": "sbin-init"},
		rootfs: map[string]string{"sbin/init": elf + "INIT_VERSION=sysvinit-3.06", "etc/inittab": strings.Repeat("#", 1<<19)},
	},
	{name: "error-runit-without-services", options: map[string]string{"init": "sbin-init"}, rootfs: map[string]string{"sbin/init": elf + "/etc/runit/1"}},
	{name: "error-sbin-init-leaves-rootfs", options: map[string]string{"init": "sbin-init"}, rootfs: map[string]string{"sbin/init": "->../../../../usr/lib/systemd/systemd"}},
	{
		name: "error-shared-pid", options: map[string]string{"init": "systemd"},
		change: func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/4242/ns/pid" },
	},
	{
		name: "error-host-pid", options: map[string]string{"app.init": "systemd"},
		change: func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
	},
	{
		name: "error-root-init-never", options: map[string]string{"init": "systemd", "root-init": "never"},
		change: func(s *specs.Spec) { s.Process.User.UID = 1000 },
	},
	{name: "error-legacy-cgroups", options: map[string]string{"init": "systemd"}, cgroups: initmode.CgroupLegacy},
	{name: "error-old-systemd", options: map[string]string{"init": "systemd"}, rootfs: map[string]string{"usr/lib/systemd/systemd": elf + "libsystemd-core libsystemd-shared-229"}},
	{
		name: "error-rlimit", options: map[string]string{"init": "systemd"},
		change: func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_FILES" },
	},
	{name: "error-T17-no-place", options: map[string]string{"init": "dumb-init"}, change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/run/rich"), bind("/dev/rich/x")) }},
	{name: "error-T17-cgroups", options: map[string]string{"init": "systemd"}, change: func(s *specs.Spec) { s.Mounts[3] = bind("/sys/fs/cgroup") }},
	{
		name: "error-T17-below-the-cgroups", options: map[string]string{"init": "systemd"}, change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup/mine", Type: "tmpfs", Source: "tmpfs"})
		},
	},
	{name: "error-T17-services", options: map[string]string{"services": "cron"}, rootfs: map[string]string{"usr/lib/systemd/systemd": elf + "libsystemd-core-252.so", "usr/lib/systemd/system/cron.service": ""}, change: func(s *specs.Spec) {
		s.Mounts[3] = bind("/sys/fs/cgroup")
	}},
	{
		name: "error-T17-bind-by-its-options", options: map[string]string{"init": "sbin-init"}, rootfs: inits["busybox"], change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/inittab", Source: "/var/lib/x", Options: []string{"bind"}})
		},
	},
	{
		name: "error-no-place", options: map[string]string{"init": "dumb-init"}, change: func(s *specs.Spec) {
			s.Mounts[1] = bind("/dev")
			s.Mounts = append(s.Mounts, bind("/run"))
		},
	},
}

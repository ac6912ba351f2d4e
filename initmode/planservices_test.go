package initmode_test

import "github.com/opencontainers/runtime-spec/specs-go"

const (
	shScript = "#!/bin/sh\n"
	rcScript = "#!/sbin/openrc-run\n"
)

// serviceCases are containers that ask for services of the image, or do not
// want some.
var serviceCases = []planCase{
	{
		name: "services-systemd", options: map[string]string{"services": "cron sshd getty@tty1, ntp mine", "mask": "exim4"},
		rootfs: with(debian, map[string]string{
			"usr/lib/systemd/system/cron.service":                      "[Unit]\n",
			"usr/lib/systemd/system/ssh.service":                       "[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
			"usr/lib/systemd/system/getty@.service":                    "[Unit]\n",
			"usr/lib/systemd/system-generators/systemd-sysv-generator": elf,
			"etc/init.d/ntp": shScript,
		}),
		change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/etc/systemd/system/mine.service")) },
	},
	{
		name: "services-cmd-is-systemd", options: map[string]string{"services": "cron.service"},
		rootfs: with(debian, map[string]string{"usr/lib/systemd/system/cron.service": "[Unit]\n"}),
		change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} },
	},
	{
		name: "services-sysvinit", options: map[string]string{"services": "cron,rsyslog,ssh", "mask": "monitor exim4"},
		rootfs: with(inits["sysvinit"], map[string]string{
			"etc/init.d/cron": shScript, "etc/rc2.d/S01cron": "->../init.d/cron",
			"etc/init.d/rsyslog": shScript, "etc/init.d/ssh": shScript, "etc/rc2.d/K01ssh": "->../init.d/ssh",
			"etc/init.d/exim4": shScript, "etc/rc2.d/S03exim4": shScript,
		}),
	},
	{
		name: "services-cmd-is-sysvinit", options: map[string]string{"services": "ssh"},
		rootfs: with(inits["sysvinit"], map[string]string{"etc/init.d/ssh": shScript}),
		change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} },
	},
	{
		name: "services-busybox", options: map[string]string{"services": "S50sshd", "mask": "telnetd"},
		rootfs: with(inits["busybox"], map[string]string{"etc/init.d/S50sshd": shScript, "etc/init.d/S51telnetd": shScript}),
	},
	{
		name: "services-alpine", options: map[string]string{"services": "crond sshd", "mask": "ntpd syslogd"},
		rootfs: with(inits["alpine"], map[string]string{
			"etc/init.d/crond": rcScript, "etc/init.d/sshd": rcScript, "etc/init.d/ntpd": rcScript, "etc/runlevels/default/crond": "->/etc/init.d/crond",
		}),
	},
	{
		name: "services-openrc", options: map[string]string{"services": "cron agetty.tty1 sshd", "mask": "ntpd"},
		rootfs: with(inits["openrc"], map[string]string{"etc/init.d/cron": shScript, "etc/init.d/sshd": rcScript, "etc/init.d/ntpd": shScript}),
	},
	{
		name: "services-cmd-is-openrc", options: map[string]string{"services": "sshd"},
		rootfs: with(inits["openrc"], map[string]string{"etc/init.d/sshd": rcScript}),
		change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/openrc-init"} },
	},
	{
		name: "services-runit", options: map[string]string{"services": "sshd, cron, ntp, getty-tty1", "mask": "default-syslog"},
		rootfs: with(inits["runit-debian"], map[string]string{
			"etc/sv/sshd/run": shScript, "etc/sv/sshd/finish": shScript, "etc/sv/sshd/log/run": shScript,
			"etc/init.d/cron": shScript, "etc/rc2.d/S01cron": "->../init.d/cron", "etc/init.d/ntp": shScript,
			"etc/runit/runsvdir/default/default-syslog": "->/etc/sv/default-syslog", "etc/sv/default-syslog/run": shScript,
		}),
	},
	{
		name: "services-sandbox", options: map[string]string{"services": "cron"},
		change: func(s *specs.Spec) { s.Annotations["io.kubernetes.cri.container-type"] = "sandbox" },
	},

	{name: "error-services-dumb-init", options: map[string]string{"services": "cron", "init": "dumb-init"}},
	{name: "error-services-none", options: map[string]string{"services": "cron", "init": "none"}},
	{name: "error-services-auto", options: map[string]string{"app.services": "cron"}, rootfs: map[string]string{"bin/sh": elf}},
	{
		name: "error-services-unknown", options: map[string]string{"services": "crond"},
		rootfs: with(debian, map[string]string{
			"usr/lib/systemd/system/cron.service": "[Unit]\n", "usr/lib/systemd/system/ssh.service": "[Unit]\n", "etc/systemd/system/cron.service.d/x.conf": "",
			"etc/init.d/cron": shScript,
		}),
	},
	{name: "error-services-none-known", options: map[string]string{"services": "cron"}},
	{
		name: "error-services-masked-by-image", options: map[string]string{"services": "cron"},
		rootfs: with(debian, map[string]string{"usr/lib/systemd/system/cron.service": "[Unit]\n", "etc/systemd/system/cron.service": "->/dev/null"}),
	},
	{
		name: "error-services-template", options: map[string]string{"services": "getty@"},
		rootfs: with(debian, map[string]string{"usr/lib/systemd/system/getty@.service": "[Unit]\n"}),
	},
	{name: "error-services-and-mask", options: map[string]string{"services": "cron", "mask": "cron.service"}},
	{
		name: "error-services-and-mask-of-alias", options: map[string]string{"services": "ssh", "mask": "sshd"},
		rootfs: with(debian, map[string]string{"usr/lib/systemd/system/ssh.service": "[Unit]\n", "etc/systemd/system/sshd.service": "->/lib/systemd/system/ssh.service"}),
	},
	{name: "error-services-auto-sysvinit", options: map[string]string{"services": "cron"}, rootfs: with(inits["sysvinit"], map[string]string{"etc/init.d/crond": shScript})},
	{name: "error-services-link-leaves", options: map[string]string{"services": "cron"}, rootfs: with(inits["sysvinit"], map[string]string{"etc/init.d/cron": "->../../../../bin/sh"})},
	{name: "error-services-not-executable", options: map[string]string{"services": "cron"}, rootfs: with(inits["openrc"], map[string]string{"etc/init.d/cron": "/"})},
	{name: "error-services-runit", options: map[string]string{"services": "cron"}, rootfs: with(inits["runit-debian"], map[string]string{"etc/sv/crond/run": shScript})},
	{
		name: "error-services-cmd-is-runit", options: map[string]string{"services": "cron"},
		rootfs: with(inits["runit-debian"], map[string]string{"etc/init.d/cron": shScript}),
		change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} },
	},
	{name: "error-services-name", options: map[string]string{"services": "../../etc/cron"}},
	{name: "error-mask-name", options: map[string]string{"mask": "rich-app"}},
}

// hostCases are containers that could change the host.
var hostCases = []planCase{
	{
		name: "B18-privileged-systemd", rootfs: with(debian, map[string]string{"etc/hostname": "image"}), change: privileged,
	},
	{
		name: "B18-privileged-sysvinit", options: map[string]string{"services": "kmod"},
		rootfs: with(inits["sysvinit"], map[string]string{
			"etc/hostname": "image", "etc/init.d/hwclock.sh": shScript, "etc/rcS.d/S01hwclock.sh": "->../init.d/hwclock.sh",
			"etc/init.d/hostname.sh": shScript, "etc/init.d/kmod": shScript, "etc/init.d/cron": shScript,
		}),
		change: privileged,
	},
	{
		name: "B18-sysctls-read-only", change: func(s *specs.Spec) {
			privileged(s)
			s.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/bus"}
		},
	},
}

// privileged gives a container all, in the host's namespaces but for the pids.
func privileged(s *specs.Spec) {
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN", "CAP_SYS_TIME")
	s.Linux.Namespaces = s.Linux.Namespaces[:1]
}

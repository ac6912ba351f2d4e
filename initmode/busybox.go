package initmode

import (
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// busybox makes busybox init pid 1, by itself or with OpenRC on top as in
// Alpine.
type busybox struct {
	own bool
}

// busyboxReboot is what it writes on its console when it is about to
// reboot. Nothing else tells that from halting.
const busyboxReboot = "Requesting system reboot"

func (b busybox) plan(req *Request, p *Plan) error {
	// PWR halts like USR1; TERM would be a reboot.
	at, err := p.boot(req, b.own, unix.SIGPWR, sbinInit)
	if err != nil {
		return err
	}
	p.RebootMessage = busyboxReboot
	data, found, err := req.Rootfs.config(inittabPath)
	if err != nil {
		return err
	}
	if !found && req.Rootfs.Exists("/etc/init.d/rcS") {
		// What it does without an inittab, but for the shells.
		data = []byte("::sysinit:/etc/init.d/rcS\n")
	}
	starts := req.Options.Services
	if req.Rootfs.hasOpenRC() {
		starts = slices.DeleteFunc(slices.Clone(starts), func(name string) bool {
			return req.Rootfs.enabled(name, verbatim, openrcLevels...)
		})
	}
	scripts, err := p.initScripts(req, starts)
	if err != nil {
		return err
	}
	if err := p.maskScripts(req, scriptDir); err != nil {
		return err
	}
	launcher := ""
	if !b.own {
		launcher = path.Join(at, "launch")
	}
	if req.Rootfs.hasOpenRC() {
		if err := p.disableOpenRCGettys(req); err != nil {
			return err
		}
	}
	services := p.servicesCommand(at, scripts)
	entries := unmasked(parseInittab(data), slices.Concat(req.foreignPrograms(), req.Options.Mask))
	components := p.componentLines(path.Join(at, "launch"), "::shutdown:", func(int) string { return "::once:" })
	p.Files = append(p.Files, text("inittab", busyboxInittab(entries, launcher, services, components)...))
	return p.cover(req, "inittab", inittabPath)
}

// busyboxInittab is the image's inittab without what serves terminals, with
// the command after all that has to end before it starts. With no launcher the
// command is the init itself. services is the command that starts and stops
// services, if there are any, and components are the lines that run those.
func busyboxInittab(entries []inittabEntry, launcher, services string, components componentLines) []string {
	lines := []string{"# Made by containerd-shim-rich from the image's own."}
	if launcher != "" {
		// Only one second would lie between TERM and KILL. Before the
		// image's own lines, as those may end all processes.
		lines = append(lines, "::shutdown:"+launcher+" stop")
	}
	if services != "" {
		lines = append(lines, "::shutdown:"+services+" stop")
	}
	lines = append(lines, components.stop...)
	for _, e := range entries {
		switch e.action {
		case "sysinit", "wait", "once", "shutdown", "restart", "ctrlaltdel":
			lines = append(lines, e.line)
		case "respawn":
			if e.id == "" && !e.isLogin() {
				lines = append(lines, e.line)
			}
		}
	}
	if services != "" {
		lines = append(lines, "::wait:"+services+" start")
	}
	lines = append(lines, components.run...)
	if launcher != "" {
		lines = append(lines, "::once:"+launcher+" app")
	}
	return lines
}

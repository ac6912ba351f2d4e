package initmode

import (
	"path"

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
	launcher := ""
	if !b.own {
		launcher = path.Join(at, "launch")
	}
	if req.Rootfs.hasOpenRC() {
		if err := p.disableOpenRCGettys(req); err != nil {
			return err
		}
	}
	components := p.componentLines(path.Join(at, "launch"), "::shutdown:", func(int) string { return "::once:" })
	p.Files = append(p.Files, text("inittab", busyboxInittab(data, launcher, components)...))
	return p.cover(req, "inittab", inittabPath)
}

// busyboxInittab is the image's inittab without what serves terminals, with
// the CMD after all that has to end before it starts. With no launcher the
// CMD is the init itself.
func busyboxInittab(data []byte, launcher string, components componentLines) []string {
	lines := []string{"# Made by containerd-shim-rich from the image's own."}
	if launcher != "" {
		// Only one second would lie between TERM and KILL. Before the
		// image's own lines, as those may end all processes.
		lines = append(lines, "::shutdown:"+launcher+" stop")
	}
	lines = append(lines, components.stop...)
	for _, e := range parseInittab(data) {
		switch e.action {
		case "sysinit", "wait", "once", "shutdown", "restart", "ctrlaltdel":
			lines = append(lines, e.line)
		case "respawn":
			if e.id == "" && !e.isLogin() {
				lines = append(lines, e.line)
			}
		}
	}
	lines = append(lines, components.run...)
	if launcher != "" {
		lines = append(lines, "::once:"+launcher+" app")
	}
	return lines
}

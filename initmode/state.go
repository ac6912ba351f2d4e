package initmode

import "io/fs"

// stateUnits tell the runtime what systemd itself does not: by sd_notify(3)
// it says that the boot has ended, but neither whether services have failed
// nor that it goes down.
func stateUnits(r *Rootfs, launcher string) []File {
	files := []File{
		text("units/rich-stopping.service",
			"[Unit]",
			"Description=Tell the runtime about the shutdown",
			"DefaultDependencies=no",
			"",
			"[Service]",
			"Type=oneshot",
			"ExecStart="+launcher+" event stopping",
			"TimeoutStartSec=5",
		),
		{Path: "units/shutdown.target.wants/rich-stopping.service", Mode: fs.ModeSymlink, Link: "../rich-stopping.service"},
	}
	systemctl := systemdProgram(r, "systemctl")
	if systemctl == "" {
		return files
	}
	return append(files,
		// Not a oneshot: it waits for the end of the boot, which would wait
		// for it.
		text("units/rich-state.service",
			"[Unit]",
			"Description=Tell the runtime about the end of the boot",
			"DefaultDependencies=no",
			"Conflicts=shutdown.target",
			"Before=shutdown.target",
			"",
			"[Service]",
			"ExecStart="+launcher+" state "+systemctl+" is-system-running --wait",
		),
		File{Path: "units/basic.target.wants/rich-state.service", Mode: fs.ModeSymlink, Link: "../rich-state.service"},
	)
}

// systemdProgram is the path of a program of systemd, empty if the image does
// not have it.
func systemdProgram(r *Rootfs, name string) string {
	for _, dir := range []string{"/usr/bin/", "/bin/"} {
		if _, err := r.executable(dir + name); err == nil {
			return dir + name
		}
	}
	return ""
}

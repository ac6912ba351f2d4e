package initmode

import (
	"path"

	"golang.org/x/sys/unix"
)

// openrcInit makes openrc-init pid 1.
type openrcInit struct {
	own bool
}

// openrcLevel is the runlevel that is started.
const openrcLevel = "default"

func (o openrcInit) plan(req *Request, p *Plan) error {
	at, err := p.boot(req, o.own, unix.SIGTERM, sbinInit, openrcLevel)
	if err != nil {
		return err
	}
	launcher := path.Join(at, "launch")
	if err := p.openrcComponents(req, launcher); err != nil {
		return err
	}
	if err := p.disableOpenRCGettys(req); err != nil || o.own {
		return err
	}
	p.Files = append(p.Files,
		// A script with functions of its own: start-stop-daemon may be
		// another one than OpenRC's.
		script("openrc/rich-app",
			"#!/sbin/openrc-run",
			`description="Command of the container"`,
			"depend() {",
			"	after *",
			"}",
			"start() {",
			"	"+launcher+" app </dev/null >/dev/console 2>&1 &",
			"}",
			"stop() {",
			"	"+launcher+" stop",
			"}",
		),
		// The last thing to start in the runlevel that stops all others.
		// Without CAP_SYS_BOOT openrc-init stays for ever after it.
		script("openrc/rich-halt",
			"#!/sbin/openrc-run",
			`description="Tell the runtime about the end"`,
			"depend() {",
			"	after *",
			"}",
			"start() {",
			`	[ -z "$RC_REBOOT" ] || `+launcher+" event reboot",
			"	"+launcher+" event halted",
			"}",
		),
	)
	for _, c := range []struct{ script, level string }{{"rich-app", openrcLevel}, {"rich-halt", "shutdown"}} {
		// It takes a file in a runlevel as well as a link.
		for _, dir := range []string{"/etc/init.d", "/etc/runlevels/" + c.level} {
			if err := p.cover(req, "openrc/"+c.script, path.Join(dir, c.script)); err != nil {
				return err
			}
		}
	}
	return nil
}

// disableOpenRCGettys covers the scripts of the gettys that are to run in the
// default runlevel.
func (p *Plan) disableOpenRCGettys(req *Request) error {
	scripts := req.Rootfs.gettys("/etc/runlevels/" + openrcLevel)
	if len(scripts) == 0 {
		return nil
	}
	for i, name := range scripts {
		scripts[i] = path.Join("/etc/init.d", name)
	}
	p.Files = append(p.Files, script("openrc/no-getty",
		"#!/sbin/openrc-run",
		`description="Disabled: nobody is at a terminal"`,
		"start() { :; }",
		"stop() { :; }",
	))
	return p.disable(req, "openrc/no-getty", scripts)
}

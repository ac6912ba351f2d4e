package initmode

import (
	"path"
	"slices"

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
	if err := p.disableOpenRCGettys(req); err != nil {
		return err
	}
	scripts, err := p.initScripts(req, slices.DeleteFunc(slices.Clone(req.Options.Services), func(name string) bool {
		return req.Rootfs.enabled(name, verbatim, openrcLevels...)
	}))
	if err != nil {
		return err
	}
	if err := p.maskScripts(req); err != nil {
		return err
	}
	launcher := path.Join(at, "launch")
	if err := p.openrcComponents(req, launcher); err != nil {
		return err
	}
	if o.own {
		err = p.joinLevel(req, scripts)
	} else {
		err = o.service(req, p, at, scripts)
	}
	if err != nil {
		return err
	}
	// The last thing to start in the runlevel that stops all others.
	// Without CAP_SYS_BOOT openrc-init stays for ever after it.
	p.Files = append(p.Files,
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
	return p.addOpenRC(req, "rich-halt", "shutdown")
}

// service makes the command a service of the runlevel.
func (openrcInit) service(req *Request, p *Plan, at string, scripts []string) error {
	launcher := path.Join(at, "launch")
	var start []string
	// Not by the runlevel, in which everything would wait for a script that
	// hangs. OpenRC itself stops them, after the command.
	if services := p.servicesCommand(at, scripts); services != "" {
		start = []string{"	" + services + " start >/dev/console 2>&1"}
	}
	p.Files = append(p.Files,
		// A script with functions of its own: start-stop-daemon may be
		// another one than OpenRC's.
		script("openrc/rich-app", slices.Concat([]string{
			"#!/sbin/openrc-run",
			`description="Command of the container"`,
			"depend() {",
			"	after *",
			"}",
			"start() {",
		}, start, []string{
			"	" + launcher + " app </dev/null >/dev/console 2>&1 &",
			"}",
			"stop() {",
			"	" + launcher + " stop",
			"}",
		})...),
	)
	return p.addOpenRC(req, CommandService, openrcLevel)
}

// addOpenRC adds one of our scripts to a runlevel, which takes a file as well
// as a link.
func (p *Plan) addOpenRC(req *Request, name, level string) error {
	for _, dir := range []string{"/etc/init.d", "/etc/runlevels/" + level} {
		if err := p.cover(req, "openrc/"+name, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// joinLevel adds init scripts to the runlevel that is started.
func (p *Plan) joinLevel(req *Request, scripts []string) error {
	for _, s := range scripts {
		// What the file holds does not matter.
		p.addOnce(script("openrc/wanted", "#!/sbin/openrc-run"))
		if err := p.cover(req, "openrc/wanted", path.Join("/etc/runlevels", openrcLevel, path.Base(s))); err != nil {
			return err
		}
	}
	return nil
}

// disableOpenRCGettys covers the scripts of the gettys that are to run in the
// default runlevel.
func (p *Plan) disableOpenRCGettys(req *Request) error {
	scripts := req.unwanted(req.Rootfs.gettys("/etc/runlevels/" + openrcLevel))
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

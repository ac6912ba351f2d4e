package initmode

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// runit makes runit pid 1. Its own interface are the files stopit and
// reboot, executable when meant.
type runit struct {
	found found
	own   bool
}

// runitStop matches the path of the file stopit, which distributions change.
var runitStop = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`/(etc|run|var)/[a-z/.]*stopit\b`) })

// maxRunit bounds how much of runit is looked through for it, in bytes. Debian's
// has 26 KiB.
const maxRunit = 1 << 20

// runitDebian is Debian's path; its runit takes PWR as a request to halt.
const runitDebian = "/run/runit.stopit"

// runitServices are where the directories of services may be, most specific
// first.
var runitServices = []string{"/etc/runit/runsvdir/default", "/etc/service", "/service", "/var/service"}

func (r runit) plan(req *Request, p *Plan) error {
	stopit := ""
	err := req.Rootfs.scan(r.found.path, maxRunit, func(w window) bool {
		if m := runitStop().FindIndex(w.data); m != nil && w.whole(m[1]) {
			stopit = string(w.data[m[0]:m[1]])
		}
		return stopit != ""
	})
	if err != nil {
		return err
	}
	if stopit == "" {
		stopit = "/etc/runit/stopit" // runit's own
	}
	halt := unix.SIGPWR
	if stopit != runitDebian {
		halt = unix.SIGINT
	}
	at, err := p.boot(req, r.own, halt, sbinInit)
	if err != nil {
		return err
	}
	dir := path.Join(at, "runit")
	if halt == unix.SIGINT {
		p.Files = append(p.Files, script("runit/ctrlaltdel",
			"#!/bin/sh",
			": >"+stopit,
			"chmod 0100 "+stopit,
		))
		if err := p.cover(req, "runit/ctrlaltdel", "/etc/runit/ctrlaltdel"); err != nil {
			return err
		}
	}
	services, err := r.services(req.Rootfs)
	if err != nil {
		return err
	}
	down := req.unwanted(req.Rootfs.gettys(services))
	foreign, _ := req.foreignServices()
	down = slices.Concat(down, req.ofInterfaces(req.Rootfs.entries(services)), foreign, req.Options.Mask)
	if len(down) > 0 {
		for i, name := range down {
			down[i] = path.Join(services, name, "run")
		}
		p.Files = append(p.Files, script("runit/no-getty", "#!/bin/sh", `exec sv down "$PWD"`))
		if err := p.disable(req, "runit/no-getty", down); err != nil {
			return err
		}
	}
	if err := p.maskScripts(req, runitScripts); err != nil {
		return err
	}
	command, err := r.wanted(req, p, at, services)
	if err != nil {
		return err
	}
	stage, found, err := req.Rootfs.config("/etc/runit/3")
	if err != nil {
		return err
	}
	launcher := path.Join(at, "launch")
	stop, err := p.runitComponents(req, launcher, services)
	if err != nil {
		return err
	}
	service := path.Join(services, CommandService)
	lines := []string{
		"#!/bin/sh",
		"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if !r.own {
		// The CMD may take its time; the image's own stage gives 7 s.
		lines = append(lines, "sv -w 90 force-stop "+service)
	}
	app := []string{"#!/bin/sh"}
	if command != "" {
		lines = append(lines, command+" stop")
		app = append(app, command+" start </dev/null >/dev/console 2>&1")
	}
	lines = append(lines, stop...)
	if found {
		p.Files = append(p.Files, File{Path: "runit/image-3", Mode: 0o755, Data: stage})
		lines = append(lines, path.Join(dir, "image-3"))
	}
	lines = append(lines,
		// Not test -x, which is false for all files where noexec is set.
		`case $(ls -l `+strings.TrimSuffix(stopit, "stopit")+`reboot 2>/dev/null) in`,
		"-??x*) "+launcher+" event reboot ;;",
		"esac",
		// Without CAP_SYS_BOOT runit stays for ever after this.
		launcher+" event halted",
	)
	p.Files = append(p.Files, script("runit/3", lines...))
	if err := p.cover(req, "runit/3", "/etc/runit/3"); err != nil || r.own {
		return err
	}
	p.Files = append(p.Files,
		script("runit/rich-app/run", append(app, "exec "+launcher+" app </dev/null >/dev/console 2>&1")...),
		// The service's directory is read-only.
		File{Path: "runit/rich-app/supervise", Mode: fs.ModeSymlink, Link: "/run/rich-app.supervise"},
	)
	return p.cover(req, "runit/rich-app", service)
}

const (
	// runitAvailable is where Debian and others keep the services that can
	// be enabled.
	runitAvailable = "/etc/sv"
	// runitScripts are the init scripts that Debian's runit starts, too.
	runitScripts = "/etc/rc2.d"
)

// wanted enables the services that were asked for, and returns the command
// that starts them.
func (r runit) wanted(req *Request, p *Plan, at, services string) (string, error) {
	var scripts, starts []string
	for _, name := range req.Options.Services {
		dir := path.Join(services, name)
		switch {
		case req.Rootfs.Exists(path.Join(dir, "run")):
		case req.Rootfs.Exists(path.Join(runitAvailable, name, "run")):
			if err := p.enableRunit(req, name, dir); err != nil {
				return "", err
			}
		case req.Rootfs.enabled(name, started, runitScripts):
			continue
		case r.own || !req.Rootfs.Exists(path.Join(scriptDir, name)):
			known, where := slices.Concat(req.Rootfs.entries(services), req.Rootfs.entries(runitAvailable)), "in "+services+" or "+runitAvailable
			if !r.own {
				known = append(known, req.Rootfs.entries(scriptDir)...)
			}
			return "", unknownService(req, name, where, known)
		default:
			scripts = append(scripts, name)
			continue
		}
		// It may not be supervised yet.
		starts = append(starts,
			"n=0; until [ -p "+dir+"/supervise/ok ] || [ $n -ge "+servicesWait+" ]; do n=$((n+1)); sleep 1; done",
			"sv -w "+servicesWait+" start "+dir)
	}
	scripts, err := p.initScripts(req, scripts)
	if err != nil || r.own {
		return "", err
	}
	// Its services are stopped by runit's own last stage.
	return p.servicesCommand(at, scripts, starts...), nil
}

// enableRunit makes a service directory that runs a service's own scripts
// where they are.
func (p *Plan) enableRunit(req *Request, name, dir string) error {
	file := path.Join("runit/sv", name)
	for _, sub := range []string{"", "log"} {
		from := path.Join(runitAvailable, name, sub)
		if !req.Rootfs.Exists(path.Join(from, "run")) {
			continue
		}
		for _, program := range []string{"run", "finish", "check"} {
			if req.Rootfs.Exists(path.Join(from, program)) {
				p.Files = append(p.Files, script(path.Join(file, sub, program), "#!/bin/sh", "cd "+from+" && exec ./"+program+` "$@"`))
			}
		}
		p.Files = append(p.Files, File{
			Path: path.Join(file, sub, "supervise"), Mode: fs.ModeSymlink,
			Link: strings.TrimSuffix("/run/rich-sv."+name+"."+sub, ".") + ".supervise",
		})
	}
	return p.cover(req, file, dir)
}

// services is the directory in which runsvdir finds services.
func (r runit) services(root *Rootfs) (string, error) {
	for _, dir := range runitServices {
		if resolved, err := root.Resolve(dir); err == nil && root.IsDir(resolved) {
			return dir, nil
		}
	}
	return "", errors.New("none of " + strings.Join(runitServices, ", ") + " is a directory of the root file system; make one")
}

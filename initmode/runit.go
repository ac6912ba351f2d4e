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

	// What a plan finds out first:

	stopit   string // the file that asks runit to stop
	at       string // where the container has our directory
	services string // where runsvdir finds services
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
	var err error
	if r.stopit, err = r.findStopit(req.Rootfs); err != nil {
		return err
	}
	halt := unix.SIGPWR
	if r.stopit != runitDebian {
		halt = unix.SIGINT
	}
	if r.at, err = p.boot(req, r.own, halt, sbinInit); err != nil {
		return err
	}
	if halt == unix.SIGINT {
		if err := r.haltByInterrupt(req, p); err != nil {
			return err
		}
	}
	if r.services, err = findServices(req.Rootfs); err != nil {
		return err
	}
	if err := r.mask(req, p); err != nil {
		return err
	}
	command, err := r.wanted(req, p)
	if err != nil {
		return err
	}
	if err := r.lastStage(req, p, command); err != nil || r.own {
		return err
	}
	return r.app(req, p, command)
}

// findStopit is the path of stopit that runit was built with, else runit's own.
func (r runit) findStopit(root *Rootfs) (string, error) {
	stopit := ""
	err := root.scan(r.found.path, maxRunit, func(w window) bool {
		if m := runitStop().FindIndex(w.data); m != nil && w.whole(m[1]) {
			stopit = string(w.data[m[0]:m[1]])
		}
		return stopit != ""
	})
	if stopit == "" {
		stopit = "/etc/runit/stopit" // runit's own
	}
	return stopit, err
}

// findServices is the directory in which runsvdir finds services.
func findServices(root *Rootfs) (string, error) {
	for _, dir := range runitServices {
		if resolved, err := root.Resolve(dir); err == nil && root.IsDir(resolved) {
			return dir, nil
		}
	}
	return "", errors.New("none of " + strings.Join(runitServices, ", ") + " is a directory of the root file system; make one")
}

// haltByInterrupt makes runit halt at INT, at which it runs this file
// (runit(8)).
func (r runit) haltByInterrupt(req *Request, p *Plan) error {
	p.Files = append(p.Files, script("runit/ctrlaltdel",
		"#!/bin/sh",
		": >"+r.stopit,
		"chmod 0100 "+r.stopit,
	))
	return p.cover(req, "runit/ctrlaltdel", "/etc/runit/ctrlaltdel")
}

// mask keeps down the services that are not to run, gettys among them, and
// masks the init scripts that are not to.
func (r runit) mask(req *Request, p *Plan) error {
	foreign, _ := req.foreignServices()
	down := slices.Concat(
		req.unwanted(req.Rootfs.gettys(r.services)),
		req.ofInterfaces(req.Rootfs.entries(r.services)),
		foreign,
		req.Options.Mask)
	if len(down) > 0 {
		for i, name := range down {
			down[i] = path.Join(r.services, name, "run")
		}
		p.Files = append(p.Files, script("runit/no-getty", "#!/bin/sh", `exec sv down "$PWD"`))
		if err := p.disable(req, "runit/no-getty", down); err != nil {
			return err
		}
	}
	return p.maskScripts(req, runitScripts)
}

// lastStage stops what was added to the image, each by its own command, and
// runs the image's own last stage. command is what starts the services that
// were asked for.
func (r runit) lastStage(req *Request, p *Plan, command string) error {
	image, found, err := req.Rootfs.config("/etc/runit/3")
	if err != nil {
		return err
	}
	launcher := path.Join(r.at, "launch")
	components, err := p.runitComponents(req, launcher, r.services)
	if err != nil {
		return err
	}
	lines := []string{
		"#!/bin/sh",
		"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if !r.own {
		// The command may take its time; the image's own stage gives 7 s.
		lines = append(lines, "sv -w 90 force-stop "+path.Join(r.services, CommandService))
	}
	if command != "" {
		lines = append(lines, command+" stop")
	}
	lines = append(lines, components...)
	if found {
		p.Files = append(p.Files, File{Path: "runit/image-3", Mode: 0o755, Data: image})
		lines = append(lines, path.Join(r.at, "runit", "image-3"))
	}
	lines = append(lines,
		// Not test -x, which is false for all files where noexec is set.
		`case $(ls -l `+strings.TrimSuffix(r.stopit, "stopit")+`reboot 2>/dev/null) in`,
		"-??x*) "+launcher+" event reboot ;;",
		"esac",
		// Without CAP_SYS_BOOT runit stays for ever after this.
		launcher+" event halted",
	)
	p.Files = append(p.Files, script("runit/3", lines...))
	return p.cover(req, "runit/3", "/etc/runit/3")
}

// app is the service that runs the command, after command if that is not empty.
func (r runit) app(req *Request, p *Plan, command string) error {
	lines := []string{"#!/bin/sh"}
	if command != "" {
		lines = append(lines, command+" start </dev/null >/dev/console 2>&1")
	}
	lines = append(lines, "exec "+path.Join(r.at, "launch")+" app </dev/null >/dev/console 2>&1")
	p.Files = append(p.Files,
		script("runit/rich-app/run", lines...),
		// The service's directory is read-only.
		File{Path: "runit/rich-app/supervise", Mode: fs.ModeSymlink, Link: "/run/rich-app.supervise"},
	)
	return p.cover(req, "runit/rich-app", path.Join(r.services, CommandService))
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
func (r runit) wanted(req *Request, p *Plan) (string, error) {
	var scripts, starts []string
	for _, name := range req.Options.Services {
		dir := path.Join(r.services, name)
		switch {
		case req.Rootfs.Exists(path.Join(dir, "run")):
		case req.Rootfs.Exists(path.Join(runitAvailable, name, "run")):
			if err := p.enableRunit(req, name, dir); err != nil {
				return "", err
			}
		case req.Rootfs.enabled(name, started, runitScripts):
			continue
		case r.own || !req.Rootfs.Exists(path.Join(scriptDir, name)):
			known, where := slices.Concat(req.Rootfs.entries(r.services), req.Rootfs.entries(runitAvailable)), "in "+r.services+" or "+runitAvailable
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
	return p.servicesCommand(r.at, scripts, starts...), nil
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

package initmode

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// runit makes runit pid 1. Its own interface are the files stopit and
// reboot, executable when meant.
type runit struct {
	found found
	own   bool
}

// runitStop matches the path of the file stopit, which distributions change.
var runitStop = regexp.MustCompile(`/(etc|run|var)/[a-z/.]*stopit\b`)

// runitDebian is Debian's path; its runit takes PWR as a request to halt.
const runitDebian = "/run/runit.stopit"

// runitServices are where the directories of services may be, most specific
// first.
var runitServices = []string{"/etc/runit/runsvdir/default", "/etc/service", "/service", "/var/service"}

func (r runit) plan(req *Request, p *Plan) error {
	program, err := req.Rootfs.read(r.found.path, maxInit)
	if err != nil {
		return err
	}
	stopit := string(runitStop.Find(program))
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
	if gettys := req.Rootfs.gettys(services); len(gettys) > 0 {
		for i, name := range gettys {
			gettys[i] = path.Join(services, name, "run")
		}
		p.Files = append(p.Files, script("runit/no-getty", "#!/bin/sh", `exec sv down "$PWD"`))
		if err := p.disable(req, "runit/no-getty", gettys); err != nil {
			return err
		}
	}
	launcher := path.Join(at, "launch")
	stop, err := p.runitComponents(req, launcher, services)
	if err != nil || r.own {
		return err
	}
	stage, found, err := req.Rootfs.config("/etc/runit/3")
	if err != nil {
		return err
	}
	service := path.Join(services, "rich-app")
	lines := []string{
		"#!/bin/sh",
		"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		// The CMD may take its time; the image's own stage gives 7 s.
		"sv -w 90 force-stop " + service,
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
	p.Files = append(p.Files,
		script("runit/3", lines...),
		script("runit/rich-app/run",
			"#!/bin/sh",
			"exec "+launcher+" app </dev/null >/dev/console 2>&1",
		),
		// The service's directory is read-only.
		File{Path: "runit/rich-app/supervise", Mode: fs.ModeSymlink, Link: "/run/rich-app.supervise"},
	)
	if err := p.cover(req, "runit/3", "/etc/runit/3"); err != nil {
		return err
	}
	return p.cover(req, "runit/rich-app", service)
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

package initmode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
)

// servicesWait is how long, in seconds, the command waits for the services that
// were asked for. Later they go on starting beside it.
const servicesWait = "60"

// maxEntries bounds how many entries of a directory of an image are looked at.
const maxEntries = 4096

// needServices says why services that were asked for cannot be started.
func needServices(req *Request, p *Plan) error {
	names := req.Options.Services
	if len(names) == 0 || IsSandbox(req.Spec.Annotations) || p.Init != config.InitDumbInit && p.Init != config.InitNone {
		return nil
	}
	return fmt.Errorf("%s: value %q: the container gets init %q, which starts no services; use an image that has systemd or another init for services "+
		"and set init to %q or %q, or set services to \"\" for this container",
		req.Options.ServicesSource, strings.Join(names, ", "), p.Init, config.InitSystemd, config.InitSbinInit)
}

// checkMasked refuses to start and to mask the same service.
func checkMasked(req *Request) error {
	for _, name := range req.Options.Services {
		if slices.Contains(req.Options.Mask, name) {
			return bothMasked(req, name)
		}
	}
	return nil
}

func bothMasked(req *Request, name string) error {
	return fmt.Errorf("%s: value %q: the option mask names this service, too; remove it from one of them", req.Options.ServicesSource, name)
}

// unknownService says that the image lacks a service, and what is near.
func unknownService(req *Request, name, where string, known []string) error {
	err := fmt.Errorf("%s: value %q: the image has no such service %s", req.Options.ServicesSource, name, where)
	slices.Sort(known)
	if near := config.Nearest(name, slices.Compact(known), 3); len(near) > 0 {
		return fmt.Errorf("%w; the nearest that it has are %s", err, strings.Join(near, ", "))
	}
	return fmt.Errorf("%w; use an image that has it, or remove it", err)
}

// wants reports whether a service was asked for.
func (req *Request) wants(name string) bool { return slices.Contains(req.Options.Services, name) }

// unwanted are the names without those that were asked for.
func (req *Request) unwanted(names []string) []string { return slices.DeleteFunc(names, req.wants) }

// entries are the names in a directory of the image, sorted.
func (r *Rootfs) entries(dir string) []string {
	resolved, err := r.Resolve(dir)
	if err != nil {
		return nil
	}
	f, err := r.root.OpenFile(inside(resolved), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries)
	if r.left.step(len(names)) != nil {
		return nil
	}
	slices.Sort(names)
	return names
}

// volume reports whether a path is or lies in a bind mount of the container's
// own.
func (p *Plan) volume(req *Request, name string) bool {
	resolved, err := req.Rootfs.Resolve(name)
	return err == nil && p.bound(req, resolved) >= 0
}

// Init scripts (LSB 20.8, "Init Script Actions") are how services are started
// under all inits but systemd.

const scriptDir = "/etc/init.d"

// initScripts are the scripts of services.
func (p *Plan) initScripts(req *Request, names []string) ([]string, error) {
	var scripts []string
	for _, name := range names {
		script := path.Join(scriptDir, name)
		_, err := req.Rootfs.executable(script)
		switch {
		case err == nil || p.volume(req, script):
			scripts = append(scripts, script)
		case errors.Is(err, fs.ErrNotExist):
			return nil, unknownService(req, name, "in "+scriptDir, req.Rootfs.entries(scriptDir))
		default:
			return nil, fmt.Errorf("%s: value %q: %w; use an image whose script can be run, or remove it", req.Options.ServicesSource, name, err)
		}
	}
	return scripts, nil
}

// enabled reports whether one of the directories has an entry for a service
// that is called as name turns it.
func (r *Rootfs) enabled(service string, name func(entry string) string, dirs ...string) bool {
	for _, dir := range dirs {
		for _, entry := range r.entries(dir) {
			if name(entry) == service {
				return true
			}
		}
	}
	return false
}

// started is the name of a service in a directory of links such as
// /etc/rc2.d, if it is started there.
func started(entry string) string {
	if len(entry) > 3 && entry[0] == 'S' && isDigit(entry[1]) && isDigit(entry[2]) {
		return entry[3:]
	}
	return ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func verbatim(entry string) string { return entry }

// openrcLevels are the runlevels that OpenRC goes through (openrc(8)).
var openrcLevels = []string{"/etc/runlevels/sysinit", "/etc/runlevels/boot", "/etc/runlevels/" + openrcLevel}

// servicesCommand writes the script that starts services, by the lines given
// and by init scripts, and stops them, and returns how it is called, without
// the action; "" if there is nothing to do.
func (p *Plan) servicesCommand(at string, scripts []string, starts ...string) string {
	if len(scripts)+len(starts) == 0 {
		return ""
	}
	lines := []string{
		"#!/bin/sh",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"export PATH",
		"case $1 in",
		"start)",
		// Once: the command's service may be started again, also on the way
		// to the end. What our directory lies in is always a tmpfs.
		"[ ! -e " + at + "-services ] || exit 0",
		": >" + at + "-services",
	}
	lines = append(lines, starts...)
	for _, s := range scripts {
		lines = append(lines, s+" start </dev/null") // its name needs no quoting
	}
	lines = append(lines, ";;", "stop)")
	for _, s := range slices.Backward(scripts) {
		lines = append(lines, s+" stop </dev/null")
	}
	lines = append(lines, ";;", "esac")
	p.Files = append(p.Files, script("services", lines...))
	return path.Join(at, "launch") + " within " + servicesWait + " " + path.Join(at, "services")
}

// maskScripts covers init scripts, so that whoever starts the services starts
// nothing.
func (p *Plan) maskScripts(req *Request, dirs ...string) error {
	foreign, _ := req.foreignServices()
	foreign = append(foreign, req.ofInterfaces(req.Rootfs.entries(scriptDir))...)
	names := slices.Concat(req.unwanted(hostScripts(req.Spec)), foreign, req.Options.Mask)
	links := map[string][]string{} // by the names of what they start
	for _, dir := range dirs {
		for _, entry := range req.Rootfs.entries(dir) {
			name := started(entry)
			links[name] = append(links[name], path.Join(dir, entry))
		}
	}
	for _, name := range names {
		programs := append([]string{path.Join(scriptDir, name)}, links[name]...)
		for _, program := range programs {
			if !req.Rootfs.Exists(program) {
				continue
			}
			if err := p.disable(req, p.maskedScript(req, program, slices.Contains(foreign, name)), []string{program}); err != nil {
				return err
			}
		}
	}
	return nil
}

// maskedScript is a file with a script that does nothing, of the same kind. With
// network it stands for one that sets the network up, which others may need: the
// host has done that.
func (p *Plan) maskedScript(req *Request, name string, network bool) string {
	const plain, openrc, openrcNetwork = "masked", "masked-openrc", "masked-openrc-net"
	if !req.Rootfs.isOpenRCScript(name) {
		p.addOnce(script(plain, "#!/bin/sh", "exit 0"))
		return plain
	}
	lines := []string{
		"#!/sbin/openrc-run",
		`description="Masked by the container's options"`,
		"start() { :; }",
		"stop() { :; }",
	}
	if network {
		p.addOnce(script(openrcNetwork, append(lines, "depend() { provide net; }")...))
		return openrcNetwork
	}
	p.addOnce(script(openrc, lines...))
	return openrc
}

// isOpenRCScript reports whether OpenRC interprets a script.
func (r *Rootfs) isOpenRCScript(name string) bool {
	resolved, err := r.Resolve(name)
	if err != nil {
		return false
	}
	data, err := r.read(resolved, 256)
	line, _, _ := strings.Cut(string(data), "\n")
	return err == nil && strings.HasPrefix(line, "#!") && strings.Contains(line, "openrc-run")
}

func (p *Plan) addOnce(f File) {
	if !slices.ContainsFunc(p.Files, func(have File) bool { return have.Path == f.Path }) {
		p.Files = append(p.Files, f)
	}
}

package initmode

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"containerd-shim-rich/config"
)

// What the inits other than systemd have in common: they read their
// configuration where the image has it, so ours is mounted over it.

// sbinInit is how they are called. Their argv[0] tells some of them that
// they are to be init.
const sbinInit = "/sbin/init"

// maxConfig bounds, in bytes, how much of a file is read that becomes part of
// what is generated.
const maxConfig = 256 << 10

// boot fills in what does not differ between these inits, and returns the
// directory of our files.
func (p *Plan) boot(req *Request, own bool, halt syscall.Signal, args ...string) (at string, err error) {
	if at, err = p.dir(req); err != nil {
		return "", err
	}
	p.Halt = halt
	names := []string{
		"container", "container_uuid", "CONSOLE", "console", "ENV", "BASH_ENV",
		"INIT_VERSION", "INIT_HALT", "RUNLEVEL", "PREVLEVEL", "SVDIR", "SVWAIT",
	}
	if !own {
		names = append(names, "TERM") // the console is a log
	}
	env := managerEnv(req, own, "RC_", names...)
	// OpenRC leaves out what cannot work in a container if it knows the
	// name; the scripts' keyword for any container but LXC and nspawn is
	// this one.
	name := "rich"
	if req.Rootfs.hasOpenRC() {
		name = "docker"
	}
	env = append(env, "container="+name, "container_uuid="+req.MachineID)
	if !own {
		env = append(env, "TERM=dumb")
	}
	if err := p.manage(req, own, env, args); err != nil {
		return "", err
	}
	if err := p.mountRun(req, at); err != nil {
		return "", err
	}
	if err := p.keepHostname(req); err != nil {
		return "", err
	}
	if req.Rootfs.Exists("/etc/machine-id") {
		return at, p.mountMachineID(req)
	}
	return at, nil
}

// hasOpenRC reports whether services are OpenRC's, whatever is pid 1.
func (r *Rootfs) hasOpenRC() bool { return r.Exists("/sbin/openrc") || r.Exists("/usr/sbin/openrc") }

// cover mounts one of the plan's files over a path of the image.
func (p *Plan) cover(req *Request, file, destination string) error {
	resolved, err := req.Rootfs.Resolve(destination)
	if err != nil {
		return fmt.Errorf("%s of the root file system: %w; make it a file", destination, err)
	}
	if i := p.bound(req, resolved); i >= 0 {
		return fmt.Errorf("mounts[%d].destination: value %q: %s needs a file of its own at %s; "+
			"mount something else there, or set init to %q", i, req.Spec.Mounts[i].Destination, p.Init, destination, config.InitDumbInit)
	}
	m := bindReadOnly(path.Join(req.RunDir, file), destination)
	m.Resolved = resolved
	p.Mounts = append(p.Mounts, m)
	return nil
}

// config reads a configuration file of the image. It is not there if the
// image has none.
func (r *Rootfs) config(name string) (data []byte, found bool, err error) {
	resolved, err := r.Resolve(name)
	if err != nil {
		return nil, false, fmt.Errorf("%s of the root file system: %w; make it a file", name, err)
	}
	if !r.Exists(resolved) {
		return nil, false, nil
	}
	if data, err = r.read(resolved, maxConfig+1); err != nil {
		return nil, false, fmt.Errorf("%s of the root file system: %w", name, err)
	}
	if len(data) > maxConfig {
		return nil, false, fmt.Errorf("%s of the root file system: %w", name, errTooLarge)
	}
	return data, true, nil
}

var errTooLarge = errors.New("larger than 256 KiB; shorten it")

// gettys are the services in a directory that serve terminals.
func (r *Rootfs) gettys(dir string) []string {
	return slices.DeleteFunc(r.entries(dir), func(name string) bool { return !strings.Contains(name, "getty") })
}

// disable covers the programs of services, which may be links to one.
func (p *Plan) disable(req *Request, file string, programs []string) error {
	seen := map[string]bool{}
	for _, name := range programs {
		resolved, err := req.Rootfs.Resolve(name)
		if err != nil || seen[resolved] || !req.Rootfs.Exists(resolved) {
			continue
		}
		seen[resolved] = true
		if err := p.cover(req, file, name); err != nil {
			return err
		}
	}
	return nil
}

package initmode

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// kind is a program that can be pid 1.
type kind string

const (
	kindUnknown  kind = ""
	kindSystemd  kind = "systemd"
	kindBusybox  kind = "busybox init"
	kindSysvinit kind = "sysvinit"
	kindOpenRC   kind = "openrc-init"
	kindRunit    kind = "runit"
	kindReaper   kind = "a minimal init"
)

// found is an init within a root file system.
type found struct {
	kind    kind
	path    string // resolved
	version int    // of systemd; 0 if it does not tell
}

var errNotELF = errors.New("not an ELF program")

// marks are strings that occur in one init's program only, seen in the
// builds of Debian; the first match counts.
var marks = []struct {
	kind kind
	mark []byte
}{
	{kindSystemd, []byte("libsystemd-core")},
	{kindSysvinit, []byte("INIT_VERSION=sysvinit-")},
	{kindOpenRC, []byte("/run/openrc/init.ctl")},
	{kindRunit, []byte("/etc/runit/1")},
	{kindRunit, []byte("runit.stopit")},
	{kindBusybox, []byte("BusyBox v")},
}

// systemdVersion matches the private library of systemd from 230 on; the
// number is the release.
var systemdVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`libsystemd-(?:core|shared)-([0-9]{3,4})`) })

// reapers are inits that run one child: images that bring one need no other.
var reapers = map[string]bool{
	"dumb-init": true, "tini": true, "tini-static": true, "catatonit": true, "docker-init": true,
}

// identify tells what the program at a path of the container is. An
// executable that is no known init has kindUnknown and no error.
func (r *Rootfs) identify(name string) (found, error) {
	resolved, err := r.executable(name)
	if err != nil {
		return found{}, err
	}
	f := found{path: resolved}
	elf, first := false, len(marks)
	err = r.scan(resolved, maxInit, func(w window) bool {
		elf = elf || w.at == 0 && bytes.HasPrefix(w.data, []byte("\x7fELF"))
		if !elf {
			return true
		}
		for i, m := range marks[:first] {
			if bytes.Contains(w.data, m.mark) {
				first, f.kind = i, m.kind
				break
			}
		}
		if f.version == 0 {
			if m := systemdVersion().FindSubmatchIndex(w.data); m != nil && w.whole(m[1]) {
				f.version, _ = strconv.Atoi(string(w.data[m[2]:m[3]]))
			}
		}
		return f.version != 0 && (first == 0 || path.Base(resolved) == "systemd")
	})
	if err != nil {
		return found{}, err
	}
	if !elf {
		return found{path: resolved}, fmt.Errorf("%s: %w", resolved, errNotELF)
	}
	// Before libsystemd-core, split off in 250, only the name tells the
	// manager from the other programs that link the library.
	if f.version != 0 && path.Base(resolved) == "systemd" {
		f.kind = kindSystemd
	}
	return f, nil
}

// systemdPaths are where distributions keep systemd.
var systemdPaths = []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"}

// findSystemd looks for systemd where distributions keep it.
func (r *Rootfs) findSystemd() (found, error) {
	var problems []string
	for _, name := range systemdPaths {
		f, err := r.identify(name)
		switch {
		case err != nil:
			problems = append(problems, err.Error())
		case f.kind == kindSystemd:
			return f, nil
		case f.kind == kindUnknown:
			problems = append(problems, name+": not systemd")
		default:
			problems = append(problems, name+": "+string(f.kind))
		}
	}
	return found{}, errors.New(strings.Join(problems, ", "))
}

// identifyCMD tells whether the program that a process runs is an init.
func (r *Rootfs) identifyCMD(args []string, cwd string, env []string) found {
	if len(args) == 0 {
		return found{}
	}
	resolved, err := r.lookPath(args[0], cwd, env)
	if err != nil {
		return found{}
	}
	name := path.Base(args[0])
	if reapers[name] || reapers[path.Base(resolved)] {
		return found{kind: kindReaper, path: resolved}
	}
	// Only what is called like an init is looked into: `busybox sh` runs
	// the same program as `busybox init`, and reading a large program at
	// every start costs time.
	if name != "init" && name != "systemd" && name != "openrc-init" && name != "runit-init" {
		return found{}
	}
	f, err := r.identify(args[0])
	if err != nil {
		return found{}
	}
	return f
}

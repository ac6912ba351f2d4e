package initmode

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// choice is an init that may become pid 1.
type choice struct {
	name string
	mode initMode // nil if nothing changes
}

var (
	noInit       = choice{name: config.InitNone}
	withDumbInit = choice{config.InitDumbInit, dumbInit{}}
)

// choose returns the init to take, and those to settle for, one after the other,
// if it cannot be run.
func choose(req *Request) ([]choice, error) {
	spec, opts := req.Spec, req.Options
	if IsSandbox(spec.Annotations) || opts.Init == config.InitNone {
		return []choice{noInit}, nil
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return nil, errors.New("process.args: empty; give the container a command")
	}
	if spec.Linux == nil {
		return nil, errors.New("linux: missing; only Linux containers are supported")
	}
	switch opts.Init {
	case config.InitDumbInit:
		return []choice{withDumbInit}, nil
	case config.InitAuto:
		return chooseAuto(req)
	}
	return chooseNamed(req)
}

// chooseNamed takes the init for services that was asked for, or says what is
// in its way.
func chooseNamed(req *Request) ([]choice, error) {
	opts := req.Options
	if private, pidns := PrivatePID(req.Spec); !private {
		return nil, fmt.Errorf("linux.namespaces: the container %s, but %s asks for init %q, which has to be pid 1 of a pid namespace of its own; "+
			"give the container its own pid namespace, or set init to %q", pidns, opts.InitSource, opts.Init, config.InitDumbInit)
	}
	f, err := findNamed(req)
	if err != nil {
		return nil, err
	}
	if err := checkRoot(req); err != nil {
		return nil, err
	}
	if err := checkCapabilities(req); err != nil {
		return nil, err
	}
	return []choice{{f.name(), f.mode(isCMD(req, f.kind))}}, nil
}

// findNamed finds the init for services that was asked for.
func findNamed(req *Request) (found, error) {
	opts := req.Options
	if opts.Init == config.InitSystemd {
		f, err := req.Rootfs.findSystemd()
		if err != nil {
			return found{}, fmt.Errorf("%s: value %q: the root file system has no systemd (%w); use an image that has it, or set init to %q or %q",
				opts.InitSource, opts.Init, err, config.InitDumbInit, config.InitAuto)
		}
		return f, nil
	}
	f, err := req.Rootfs.identify(sbinInit)
	if err == nil && f.mode(false) == nil {
		err = fmt.Errorf("%s is %s; supported are systemd, sysvinit, busybox init, openrc-init and runit", f.path, f.kind.describe())
	}
	if err != nil {
		return found{}, fmt.Errorf("%s: value %q: /sbin/init of the root file system cannot be used (%w); use an image with another init, or set init to %q",
			opts.InitSource, opts.Init, err, config.InitDumbInit)
	}
	return f, nil
}

// mode is how to run an init, nil if it cannot be. With own it is the command.
func (f found) mode(own bool) initMode {
	switch f.kind {
	case kindSystemd:
		return systemd{found: f, own: own}
	case kindBusybox:
		return busybox{own: own}
	case kindSysvinit:
		return sysvinit{own: own}
	case kindOpenRC:
		return openrcInit{own: own}
	case kindRunit:
		return runit{found: f, own: own}
	}
	return nil
}

// name is what Plan.Init says about it.
func (f found) name() string { return string(f.kind) }

// chooseAuto never fails for what an image lacks, or for a mount of the user's:
// it settles for less.
func chooseAuto(req *Request) ([]choice, error) {
	p := req.Spec.Process
	f := req.Rootfs.identifyCMD(p.Args, p.Cwd, p.Env)
	switch f.kind {
	case kindUnknown:
		return chooseFor(req), nil
	case kindReaper:
		if req.Options.OnExit != config.OnExitStop || len(req.Components) > 0 {
			// It reaps, but starts nothing else, and its child only once.
			return []choice{withDumbInit}, nil
		}
		return []choice{noInit}, nil
	}
	if private, _ := PrivatePID(req.Spec); private && p.User.UID == 0 && f.mode(true) != nil {
		return []choice{{f.name(), f.mode(true)}, noInit}, nil
	}
	if len(req.Components) > 0 {
		return nil, noComponents(req, fmt.Sprintf("process.args: the command is %s, which runs services only as root in a pid namespace of its own", f.kind.describe()))
	}
	// An init that is the command gets what it would get from runc.
	return []choice{noInit}, nil
}

// chooseFor chooses for a command that is no init: the image's own init for
// services if it may be one, else dumb-init, else none.
func chooseFor(req *Request) []choice {
	if private, _ := PrivatePID(req.Spec); private && mayManage(req) {
		if f, err := req.Rootfs.findSystemd(); err == nil && checkSystemd(req, f) == nil {
			return []choice{{f.name(), f.mode(false)}, withDumbInit, noInit}
		}
		if f, err := req.Rootfs.identify(sbinInit); err == nil && f.kind != kindSystemd && f.mode(false) != nil {
			return []choice{{f.name(), f.mode(false)}, withDumbInit, noInit}
		}
	}
	return []choice{withDumbInit, noInit}
}

// mayManage reports whether an init that nobody asked for by name may run as
// root.
func mayManage(req *Request) bool {
	return req.Spec.Process.User.UID == 0 ||
		req.Options.RootInit == config.RootInitAlways && checkCapabilities(req) == nil
}

func isCMD(req *Request, k kind) bool {
	p := req.Spec.Process
	return req.Rootfs.identifyCMD(p.Args, p.Cwd, p.Env).kind == k
}

// checkRoot applies the option root-init to an init that was asked for.
func checkRoot(req *Request) error {
	user := req.Spec.Process.User
	if user.UID == 0 || req.Options.RootInit != config.RootInitNever {
		return nil
	}
	way := fmt.Sprintf("set root-init to %q", config.RootInitExplicit)
	if IsCRI(req.Spec.Annotations) {
		way = fmt.Sprintf("ask the node's administrator for root-init = %q in %s", config.RootInitExplicit, config.HostFile)
	}
	return fmt.Errorf("process.user.uid: value %d: init %q has to run as root, which root-init=%q forbids; "+
		"%s, run the container as root, or set init to %q",
		user.UID, req.Options.Init, config.RootInitNever, way, config.InitDumbInit)
}

// checkCapabilities says which capabilities the init lacks to start a command
// as the user that the spec names.
func checkCapabilities(req *Request) error {
	p := req.Spec.Process
	if p.User.UID == 0 || p.Capabilities == nil {
		return nil
	}
	var lacks []string
	for _, c := range []string{"CAP_SETGID", "CAP_SETUID"} {
		if !slices.Contains(p.Capabilities.Bounding, c) {
			lacks = append(lacks, c)
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("process.capabilities.bounding: lacks %s, without which init %q cannot start a command as user %d; "+
		"add them, run the container as root, or set init to %q",
		strings.Join(lacks, " and "), req.Options.Init, p.User.UID, config.InitDumbInit)
}

// PrivatePID reports whether the container has a pid namespace of its own,
// and otherwise says what it has.
func PrivatePID(spec *specs.Spec) (private bool, what string) {
	switch ns := Namespace(spec, specs.PIDNamespace); {
	case ns == nil:
		return false, "uses the host's pid namespace"
	case ns.Path != "":
		return false, fmt.Sprintf("shares the pid namespace %q", ns.Path)
	}
	return true, ""
}

func (k kind) describe() string {
	if k == kindUnknown {
		return "a program that is no known init"
	}
	return string(k)
}

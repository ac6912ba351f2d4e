// Package initmode decides which program becomes pid 1 of a container and
// what has to change around it. It only reads the root file system: the same
// input gives the same plan.
package initmode

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// Annotations that engines put on bundles.
const (
	annotationContainerType = "io.kubernetes.cri.container-type"
	annotationContainerName = "io.kubernetes.cri.container-name"
	annotationStopSignal    = "org.opencontainers.image.stopSignal"
)

// CgroupLayout is how the host mounts its cgroups.
type CgroupLayout int

// The three layouts that systemd knows (systemd.io/CGROUP_DELEGATION).
const (
	CgroupUnified CgroupLayout = iota // v2 only
	CgroupHybrid                      // v1 controllers, v2 at /sys/fs/cgroup/unified
	CgroupLegacy                      // v1 only
)

// Request is all that a plan depends on.
type Request struct {
	Spec    *specs.Spec
	Rootfs  *Rootfs
	Options config.Options
	// MachineID is the 32 hex digits that identify the container (machine-id(5)).
	MachineID string
	// RunDir is the directory on the host that the files of the plan are
	// written to and that the container gets at its Dir.
	RunDir string
	// Launcher and DumbInit are the host's paths of the two programs.
	Launcher, DumbInit string
	Cgroups            CgroupLayout
	// Limits are the resource limits a process gets that sets none.
	Limits []launch.Rlimit
	// Components run beside the CMD. The host has the directory of each by
	// its name in ComponentsDir.
	Components    []*components.Definition
	ComponentsDir string
	// ContainerID and Namespace are containerd's, for the components.
	ContainerID, Namespace string
}

// File is written below RunDir before the container is created.
type File struct {
	Path string // relative to RunDir
	Mode fs.FileMode
	Data []byte
	Link string // target, if the file is a symbolic link
	// Private gives the file to the CMD's user, for whom alone it is.
	Private bool
}

// CommandService is the name of the service that runs the CMD, where services
// have names.
const CommandService = "rich-app"

// Plan says what becomes of a container. The zero Plan changes nothing.
type Plan struct {
	// Init names the mode in effect.
	Init string
	// Process replaces process of the spec if it is not nil.
	Process *specs.Process
	// Service starts the CMD as a service of the init; nil if the CMD is
	// pid 1 or a child that inherits its streams.
	Service *launch.Record
	// Command starts the CMD as a child of dumb-init with the streams that
	// it inherits, beside components; nil if it is not started like that.
	Command *launch.Record
	// Components run beside the CMD.
	Components []Component
	// Halt asks the init for an orderly shutdown; 0 if it is only ended by
	// the end of its child.
	Halt syscall.Signal
	// Mounts are added in this order, each in place of what the spec
	// mounts at its destination or below.
	Mounts []Mount
	// Destinations are those of the spec's own mounts after following the
	// links of the root file system.
	Destinations []string
	// MountPoints are those of Mounts that lie in volumes of the user's.
	MountPoints []MountPoint
	// Files are written below RunDir.
	Files []File
	// Sysctl are set beside those of the spec, in the network namespace: unless
	// that is the host's, or has higher values.
	Sysctl map[string]string
	// ReadonlyPaths are read-only beside those of the spec.
	ReadonlyPaths []string
	// PrivateCgroup gives the container a cgroup namespace of its own.
	PrivateCgroup bool
	// Console gives pid 1 a terminal of its own at /dev/console.
	Console bool
	// Notify says that the init tells its state at NotifySocket.
	Notify bool
	// RebootMessage is what the init writes there when it is about to
	// reboot, if it cannot tell in another way.
	RebootMessage string
}

// Mount is a mount that a plan adds.
type Mount struct {
	specs.Mount
	// Resolved is the destination after following the links of the root
	// file system.
	Resolved string
	// Keep prefers what the spec mounts at the destination, if it does.
	Keep bool
}

// Passive reports whether the bundle passes through untouched.
func (p *Plan) Passive() bool { return p.Init == config.InitNone }

// initMode is one init.
type initMode interface {
	// plan fills in the plan for a container whose CMD becomes a service.
	plan(*Request, *Plan) error
}

// New decides what becomes pid 1. Every error names the field at fault and
// the way out.
func New(req *Request) (*Plan, error) {
	name, mode, err := choose(req)
	if err != nil {
		return nil, err
	}
	p := &Plan{Init: name}
	if mode == nil {
		return p, errors.Join(checkOnExit(req, p), needServices(req, p))
	}
	for i, m := range req.Spec.Mounts {
		resolved, err := req.Rootfs.Resolve(m.Destination)
		if err != nil {
			return nil, fmt.Errorf("mounts[%d].destination: value %q: %w; mount it at a path inside the container", i, m.Destination, err)
		}
		p.Destinations = append(p.Destinations, resolved)
	}
	if err := checkMasked(req); err != nil {
		return nil, err
	}
	if err := mode.plan(req, p); err != nil {
		return nil, err
	}
	if err := p.checkVolumes(req); err != nil {
		return nil, err
	}
	if err := p.checkFiles(req); err != nil {
		return nil, err
	}
	return p, errors.Join(checkOnExit(req, p), needServices(req, p))
}

// checkOnExit rejects an option on-exit that nobody would heed. A sandbox has
// the annotations that are meant for its pod's containers.
func checkOnExit(req *Request, p *Plan) error {
	opts := req.Options
	if opts.OnExit == config.OnExitStop || p.Service != nil || IsSandbox(req.Spec.Annotations) {
		return nil
	}
	why := "the command is pid 1, whose end is the end of the container"
	if p.Halt != 0 {
		why = "the command is the init itself"
	}
	return fmt.Errorf("%s: value %q: with init %q %s; set init to %q, or on-exit to %q",
		opts.OnExitSource, opts.OnExit, p.Init, why, config.InitDumbInit, config.OnExitStop)
}

// mounted returns the last mount of the spec whose resolved destination is
// exactly dst: the one that is seen there.
func (p *Plan) mounted(req *Request, dst string) *specs.Mount {
	for i := len(p.Destinations) - 1; i >= 0; i-- {
		if p.Destinations[i] == dst {
			return &req.Spec.Mounts[i]
		}
	}
	return nil
}

// bound returns the index of the bind mount of the container's own that a
// resolved path is or lies in, -1 if there is none. What is there is known
// only when the container runs.
func (p *Plan) bound(req *Request, resolved string) int {
	for i, d := range p.Destinations {
		if isBind(&req.Spec.Mounts[i]) && within(resolved, d) {
			return i
		}
	}
	return -1
}

// within reports whether a path is dir or lies in it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func choose(req *Request) (string, initMode, error) {
	spec, opts := req.Spec, req.Options
	if IsSandbox(spec.Annotations) {
		return config.InitNone, nil, nil
	}
	if opts.Init == config.InitNone {
		if len(req.Components) > 0 {
			return "", nil, noComponents(req, fmt.Sprintf("init %q (%s) runs nothing beside the command", config.InitNone, opts.InitSource))
		}
		return config.InitNone, nil, nil
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return "", nil, errors.New("process.args: empty; give the container a command")
	}
	if spec.Linux == nil {
		return "", nil, errors.New("linux: missing; only Linux containers are supported")
	}
	private, pidns := PrivatePID(spec)
	switch opts.Init {
	case config.InitDumbInit:
		return config.InitDumbInit, dumbInit{}, nil
	case config.InitAuto:
		return chooseAuto(req, private)
	}

	if !private {
		return "", nil, fmt.Errorf("linux.namespaces: the container %s, but %s asks for init %q, which has to be pid 1 of a pid namespace of its own; "+
			"give the container its own pid namespace, or set init to %q", pidns, opts.InitSource, opts.Init, config.InitDumbInit)
	}
	var f found
	var err error
	if opts.Init == config.InitSystemd {
		if f, err = req.Rootfs.findSystemd(); err != nil {
			return "", nil, fmt.Errorf("%s: value %q: the root file system has no systemd (%w); use an image that has it, or set init to %q or %q",
				opts.InitSource, opts.Init, err, config.InitDumbInit, config.InitAuto)
		}
	} else {
		f, err = req.Rootfs.identify(sbinInit)
		if err == nil && f.mode(false) == nil {
			err = fmt.Errorf("%s is %s; supported are systemd, sysvinit, busybox init, openrc-init and runit", f.path, f.kind.describe())
		}
		if err != nil {
			return "", nil, fmt.Errorf("%s: value %q: /sbin/init of the root file system cannot be used (%w); use an image with another init, or set init to %q",
				opts.InitSource, opts.Init, err, config.InitDumbInit)
		}
	}
	if err := checkRoot(req); err != nil {
		return "", nil, err
	}
	if err := checkCapabilities(req); err != nil {
		return "", nil, err
	}
	return f.name(), f.mode(isCMD(req, f.kind)), nil
}

// mode is how to run an init, nil if it cannot be. With own it is the CMD.
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

// chooseAuto never fails for what an image lacks: it settles for less.
func chooseAuto(req *Request, private bool) (string, initMode, error) {
	p := req.Spec.Process
	switch f := req.Rootfs.identifyCMD(p.Args, p.Cwd, p.Env); {
	case f.kind == kindReaper && (req.Options.OnExit != config.OnExitStop || len(req.Components) > 0):
		// It reaps, but starts nothing else, and its child only once.
		return config.InitDumbInit, dumbInit{}, nil
	case f.kind == kindReaper:
		return config.InitNone, nil, nil
	case f.kind == kindUnknown:
	case private && p.User.UID == 0 && f.mode(true) != nil:
		return f.name(), unshared{f.mode(true), true}, nil
	case len(req.Components) > 0:
		return "", nil, noComponents(req, fmt.Sprintf("process.args: the command is %s, which runs services only as root in a pid namespace of its own", f.kind.describe()))
	default:
		// An init that is the CMD gets what it would get from runc.
		return config.InitNone, nil, nil
	}
	if private && (p.User.UID == 0 || req.Options.RootInit == config.RootInitAlways && checkCapabilities(req) == nil) {
		if f, err := req.Rootfs.findSystemd(); err == nil && checkSystemd(req, f) == nil {
			return f.name(), unshared{f.mode(false), false}, nil
		}
		if f, err := req.Rootfs.identify(sbinInit); err == nil && f.kind != kindSystemd && f.mode(false) != nil {
			return f.name(), orDumbInit{f.mode(false)}, nil
		}
	}
	return config.InitDumbInit, dumbInit{}, nil
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
	return fmt.Errorf("process.user.uid: value %d: init %q has to run as root, which root-init=%q forbids; "+
		"set root-init to %q, run the container as root, or set init to %q",
		user.UID, req.Options.Init, config.RootInitNever, config.RootInitExplicit, config.InitDumbInit)
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

// IsSandbox reports whether a container is the one that only holds a pod's
// namespaces.
func IsSandbox(annotations map[string]string) bool {
	return annotations[annotationContainerType] == "sandbox"
}

// ContainerName is the name of the container within its pod, if the engine
// tells it.
func ContainerName(annotations map[string]string) string {
	return annotations[annotationContainerName]
}

// IsInPod reports whether a container is one of a pod's own, which the kubelet
// sends no signals but its stop signal and SIGKILL (StopContainer of the CRI).
func IsInPod(annotations map[string]string) bool {
	return annotations[annotationContainerType] == "container"
}

// ImageStopSignal is the image's stop signal, if the engine tells it; else 0.
func ImageStopSignal(annotations map[string]string) int {
	n, err := config.ParseSignal(annotations[annotationStopSignal])
	if err != nil {
		return 0
	}
	return n
}

// dir is where the container sees RunDir: below /run, unless that is a
// volume of the user's, in which nothing may be made.
func (p *Plan) dir(req *Request) (string, error) {
	const inRun, inDev = "/run/rich", "/dev/rich"
	m := p.mounted(req, "/run")
	if m == nil || m.Type == "tmpfs" {
		return inRun, nil
	}
	if dev := p.mounted(req, "/dev"); dev != nil && dev.Type == "tmpfs" {
		return inDev, nil
	}
	return "", fmt.Errorf("mounts: both /run (type %q, source %q) and /dev are mounts of the container's own, which leaves no place for the launcher; "+
		"mount a tmpfs at one of them, or set init to %q", m.Type, m.Source, config.InitNone)
}

// bindReadOnly is a read-only bind mount of a file or directory of ours.
func bindReadOnly(source, destination string, extra ...string) Mount {
	return Mount{
		Mount: specs.Mount{
			Destination: destination,
			Type:        "bind",
			Source:      source,
			Options:     append([]string{"bind", "ro", "nosuid", "nodev"}, extra...),
		},
		Resolved: path.Clean(destination),
	}
}

// Package initmode decides which program becomes pid 1 of a container and
// what has to change around it. It only reads the root file system: the same
// input gives the same plan.
package initmode

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
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
	// HostNetwork says that the container's network namespace is the host's.
	HostNetwork bool
	// Limits are the resource limits a process gets that sets none.
	Limits []launch.Rlimit
	// Components run beside the command. The host has the directory of each by
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
	// Private gives the file to the command's user, for whom alone it is.
	Private bool
}

// CommandService is the name of the service that runs the command, where services
// have names.
const CommandService = "rich-app"

// Plan says what becomes of a container. The zero Plan changes nothing.
type Plan struct {
	// Init names the mode in effect.
	Init string
	// Shape is what the command is to pid 1.
	Shape Shape
	// Process replaces process of the spec if it is not nil.
	Process *specs.Process
	// Service starts the command as a service of the init; nil if the command is
	// pid 1 or a child that inherits its streams.
	Service *launch.Record
	// Child starts the command as a child of dumb-init with the streams that
	// it inherits, beside components; nil if it is not started like that.
	Child *launch.Record
	// Components run beside the command.
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

	// Notes are for the log: what became of mounts of the spec's own, and of
	// an init that was found.
	Notes []string

	// aliases are units of the image by names that they do not have now.
	aliases map[string]string
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

// initMode is one init.
type initMode interface {
	// plan fills in the plan for a container whose command becomes a service.
	plan(*Request, *Plan) error
}

// New decides what becomes pid 1. Every error names the field at fault and
// the way out.
func New(req *Request) (*Plan, error) {
	choices, err := choose(req)
	if err != nil {
		return nil, err
	}
	var destinations []string
	if choices[0].mode != nil {
		if destinations, err = resolveMounts(req); err != nil {
			return nil, err
		}
		if err := checkMasked(req); err != nil {
			return nil, err
		}
	}
	var first error
	for _, c := range choices {
		p, err := c.plan(req, destinations)
		if err == nil {
			if first != nil {
				p.Notes = append(p.Notes, fmt.Sprintf("init %q instead of %q: %v", c.name, choices[0].name, first))
			}
			return p, nil
		}
		if first == nil {
			first = err
		}
		req.Rootfs.left = newBudget()
	}
	return nil, first
}

// maxMounts bounds the mounts of a plan, which may depend on the image.
const maxMounts = 512

func (c choice) plan(req *Request, destinations []string) (*Plan, error) {
	p := &Plan{Init: c.name}
	switch {
	case c.mode != nil:
		p.Destinations = destinations
		if err := c.mode.plan(req, p); err != nil {
			return nil, err
		}
		if req.Rootfs.left.err != nil || len(p.Mounts) > maxMounts {
			return nil, errTooMuch
		}
		if err := errors.Join(p.replaceMounts(req), p.checkVolumes(req), p.checkFiles(req)); err != nil {
			return nil, err
		}
	case len(req.Components) > 0 && !IsSandbox(req.Spec.Annotations):
		return nil, noComponents(req, fmt.Sprintf("init %q (%s) runs nothing beside the command", config.InitNone, req.Options.InitSource))
	}
	p.Shape = p.shape()
	if err := errors.Join(checkOnExit(req, p), needServices(req, p)); err != nil {
		return nil, err
	}
	return p, nil
}

// checkOnExit rejects an option on-exit that nobody would heed. A sandbox has
// the annotations that are meant for its pod's containers.
func checkOnExit(req *Request, p *Plan) error {
	opts := req.Options
	if opts.OnExit == config.OnExitStop || p.Shape == ServiceOfInit || IsSandbox(req.Spec.Annotations) {
		return nil
	}
	why := "the command is pid 1, whose end is the end of the container"
	if p.Shape == InitItself {
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

// IsCRI reports whether a container is of a pod, whose author is not root on the
// host, or the pod's sandbox: the CRI of containerd says what it is.
func IsCRI(annotations map[string]string) bool {
	_, found := annotations[annotationContainerType]
	return found
}

// ImageStopSignal is the image's stop signal, if the engine tells it; else 0.
func ImageStopSignal(annotations map[string]string) int {
	n, err := config.ParseSignal(annotations[annotationStopSignal])
	if err != nil {
		return 0
	}
	return n
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

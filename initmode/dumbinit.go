package initmode

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// dumbInit makes dumb-init pid 1. It runs with the command's own credentials and
// streams, passes signals on and ends with the command's status, so nothing else
// of the container changes.
type dumbInit struct{}

func (d dumbInit) plan(req *Request, p *Plan) error {
	at, err := p.dir(req)
	if err != nil {
		return err
	}
	if req.Options.OnExit != config.OnExitStop {
		return d.stay(req, p, at)
	}
	if len(req.Components) > 0 {
		return d.beside(req, p, at)
	}
	program, launcher := path.Join(at, "dumb-init"), path.Join(at, "launch")
	process := *req.Spec.Process
	process.Env = config.WithoutPouch(process.Env)
	process.Args = append([]string{program, "--"}, process.Args...)
	if !tight(process.Rlimits) {
		// dumb-init reports any failure to start its child as status 2.
		// The launcher says which program could not be started and why,
		// and ends with 127 or 126 as a shell does; else it is replaced by
		// the command.
		process.Args = slices.Insert(process.Args, 2, launcher, "run", "--")
	}
	p.Process = &process
	p.Mounts = []Mount{
		bindReadOnly(req.DumbInit, program),
		bindReadOnly(req.Launcher, launcher),
	}
	return nil
}

// inherit leaves out what a process has as pid 1's child: a launcher that is
// not root may not set it again.
func inherit(r *launch.Record) {
	r.Capabilities, r.OOMScoreAdj, r.IOPriority, r.Scheduler = nil, nil, nil, nil
	r.NoNewPrivileges = false
}

// stay makes the command a service of the launcher, which dumb-init starts in its
// place: dumb-init itself ends with its child. Both run with the command's own
// credentials, or as root for components.
func (dumbInit) stay(req *Request, p *Plan, at string) error {
	root, err := componentsNeedRoot(req)
	if err != nil {
		return err
	}
	if p.Service, err = record(req); err != nil {
		return err
	}
	if !root {
		inherit(p.Service)
	}
	program, launcher := path.Join(at, "dumb-init"), path.Join(at, "launch")
	process := *req.Spec.Process
	process.Env = p.Service.Env
	process.Args = append([]string{program, "--", launcher, "app"}, req.componentNames()...)
	if root {
		asRoot(&process)
	}
	process.Terminal, process.ConsoleSize = false, nil
	process.Rlimits = managerLimits(process.Rlimits, req.Limits)
	p.Process = &process
	p.Console = true
	p.Halt = unix.SIGTERM
	p.Files = []File{{Path: "launch", Mode: 0o755}, {Path: "dumb-init", Mode: 0o755}} // mount points
	p.Mounts = []Mount{
		bindReadOnly(req.RunDir, at),
		bindReadOnly(req.DumbInit, program),
		bindReadOnly(req.Launcher, launcher),
	}
	p.addComponents(req, at)
	return nil
}

// What a Go program such as the launcher needs at the least to start, with
// room to spare.
const (
	tightMemory  = 512 << 20 // bytes of address space
	tightThreads = 64
)

// tight reports whether a limit would keep the launcher from starting.
func tight(limits []specs.POSIXRlimit) bool {
	return slices.ContainsFunc(limits, func(l specs.POSIXRlimit) bool {
		switch l.Type {
		case "RLIMIT_AS", "RLIMIT_DATA":
			return l.Soft < tightMemory
		case "RLIMIT_NPROC":
			return l.Soft < tightThreads
		}
		return false
	})
}

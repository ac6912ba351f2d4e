package initmode

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// dumbInit makes dumb-init pid 1. It runs with the CMD's own credentials and
// streams, passes signals on and ends with the CMD's status, so nothing else
// of the container changes.
type dumbInit struct{}

func (d dumbInit) plan(req *Request, p *Plan) error {
	at, err := p.dir(req)
	if err != nil {
		return err
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
		// the CMD.
		process.Args = slices.Insert(process.Args, 2, launcher, "run", "--")
	}
	p.Process = &process
	p.Mounts = []Mount{
		bindReadOnly(req.DumbInit, program),
		bindReadOnly(req.Launcher, launcher),
	}
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

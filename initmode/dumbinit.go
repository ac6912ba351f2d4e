package initmode

import (
	"path"

	"containerd-shim-rich/config"
)

// dumbInit makes dumb-init pid 1. It runs with the CMD's own credentials and
// streams, passes signals on and ends with the CMD's status, so nothing else
// of the container changes.
type dumbInit struct{}

func (dumbInit) plan(req *Request, p *Plan) error {
	at, err := p.dir(req)
	if err != nil {
		return err
	}
	program, launcher := path.Join(at, "dumb-init"), path.Join(at, "launch")
	process := *req.Spec.Process
	process.Env = config.WithoutPouch(process.Env)
	// dumb-init reports any failure to start its child as status 2. The
	// launcher says which program could not be started and why, and ends
	// with 127 or 126 as a shell does; then it is replaced by the CMD.
	process.Args = append([]string{program, "--", launcher, "run", "--"}, process.Args...)
	p.Process = &process
	p.Mounts = []Mount{
		bindReadOnly(req.DumbInit, program),
		bindReadOnly(req.Launcher, launcher),
	}
	return nil
}

package initmode

import "containerd-shim-rich/config"

// Shape is what the command of a container is to its pid 1.
type Shape int

// The shapes.
const (
	// Untouched is a container as it is without this runtime: pid 1 is the command.
	Untouched Shape = iota
	// ChildOfReaper: pid 1 is dumb-init, which passes signals on to its child,
	// the command, and ends with it.
	ChildOfReaper
	// ServiceOfInit: a launcher, which pid 1 starts as a service, runs the command,
	// which has the task's streams and exit status.
	ServiceOfInit
	// InitItself: the command is an init, and so pid 1.
	InitItself
)

// shape is that of a plan that is complete but for it.
func (p *Plan) shape() Shape {
	switch {
	case p.Service != nil:
		return ServiceOfInit
	case p.Halt != 0:
		return InitItself
	case p.Init == config.InitDumbInit:
		return ChildOfReaper
	}
	return Untouched
}

// String names the shape.
func (s Shape) String() string {
	return [...]string{"untouched", "child of a reaper", "service of the init", "the init itself"}[s]
}

// HasInit reports whether pid 1 is an init that halts and reboots.
func (s Shape) HasInit() bool { return s == ServiceOfInit || s == InitItself }

package life

import (
	"errors"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

// noCommand notes that there will be no command, if there has been none. first
// says that this is so. The caller holds mu.
func (l *Life) noCommand() (first bool) {
	first = l.result == nil
	if first {
		l.result, l.own = &launch.Exited{Status: statusNotStarted}, true
	}
	l.stopping = true
	return first
}

// PrestartFailed is told when a prestart hook has failed.
func (l *Life) PrestartFailed(err error) (do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prestart = true
	if l.Shape != initmode.ServiceOfInit {
		// Start returns the error.
		do.Kill = true
		return do
	}
	if l.noCommand() {
		do.Complain = err
	}
	l.halt(&do)
	return do
}

// LauncherFailed is told when the init could not start the launcher, or that
// could not reach the shim.
func (l *Life) LauncherFailed() (do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun && l.Shape.HasInit() {
		l.stopping = true
		l.halt(&do)
	}
	return do
}

// Unfit is told when the launcher cannot be talked to, being of another version:
// without it there will be no command. Its events could not be understood either,
// so the init is not asked to halt. Once there has been a command, somebody else
// is at the socket, and believed is false.
func (l *Life) Unfit(err error) (believed bool, do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running || l.begun || l.result != nil || l.stopping || l.closed {
		return false, do
	}
	l.noCommand()
	l.unfit = true
	l.state.Error = err.Error()
	return true, Actions{Show: true, Complain: err, Kill: true}
}

// component is what is known about one of them.
type component struct {
	ready  bool
	reason string // why it will not become ready
}

func (l *Life) componentOf(name string) *component {
	c := l.components[name]
	if c == nil {
		c = &component{}
		l.components[name] = c
	}
	return c
}

// ComponentReady is told when a component is ready; first says that it has not
// been before.
func (l *Life) ComponentReady(name string) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.componentOf(name)
	first = !c.ready
	c.ready = true
	return first
}

// ComponentFailed is told when a component will not become ready. One that has
// been stays.
func (l *Life) ComponentFailed(name, reason string) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.componentOf(name)
	if c.ready || c.reason != "" {
		return false
	}
	c.reason = reason
	return true
}

// ComponentFault is why a component will not become ready, if that is known.
func (l *Life) ComponentFault(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.componentOf(name).reason
}

// ComponentMissing is told when a component that is required is not there in
// time. There is no command then, and one that is the init itself ends; if that is
// about to end anyway, the component may be missing for it.
func (l *Life) ComponentMissing(reason string) (do Actions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Shape == initmode.InitItself && (l.halting || l.killed || l.gone || l.init.State == InitStopping) {
		return do
	}
	l.component = reason
	switch l.Shape {
	case initmode.ServiceOfInit:
		if l.noCommand() {
			do.Complain = errors.New(reason)
		}
		l.halt(&do)
	case initmode.InitItself:
		do.Complain = errors.New(reason)
		l.halt(&do)
	}
	return do
}

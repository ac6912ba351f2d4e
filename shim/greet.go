package shim

import (
	"errors"
	"fmt"

	"containerd-shim-rich/launch"
)

// greet answers the first message of a launcher. It returns an error if that is
// of another version. There is no answer to an event, whose sender does not
// wait for one.
func (a *app) greet(conn *launch.Conn, hello launch.Hello) error {
	if hello.Role == launch.RoleEvent && hello.Version == launch.EventVersion {
		return nil
	}
	if hello.Version != launch.Version {
		return a.refuseVersion(conn, hello)
	}
	if hello.Role == launch.RoleEvent {
		return nil
	}
	return conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleShim})
}

// refuseVersion ends the container if the launcher that is to run the CMD
// cannot be talked to: without it there will be none. Its events could not be
// understood either, so the init is not asked to halt. Once there has been a
// CMD, somebody else is at the socket.
func (a *app) refuseVersion(conn *launch.Conn, hello launch.Hello) error {
	err := fmt.Errorf("the launcher has version %d of the launch protocol, this shim version %d: they were not installed together; "+
		"make the pod or the container anew, with programs of one release", hello.Version, launch.Version)
	_ = conn.Send(launch.Refuse{Reason: err.Error()}) // the other side may not even understand this
	runs := hello.Role != launch.RoleEvent && hello.Role != launch.RoleComponent && (a.record != nil || a.components.runsCommand())
	if !runs || !a.noCommand(err) {
		return err
	}
	a.mismatched()
	a.stdio.Complain(err)
	return errors.Join(err, a.kill())
}

// noCommand notes why there is no CMD, if there has been none. The container
// is to end.
func (a *app) noCommand(why error) bool {
	if a.components.commandHasStarted() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begun || a.result != nil || a.stopping || a.closed {
		return false
	}
	a.result, a.own = &launch.Exited{Status: statusNotStarted}, true
	a.unfit, a.stopping = true, true
	a.state.Error = why.Error()
	a.shown.put(a.state)
	return true
}

// runsCommand reports whether the CMD runs beside the components below
// dumb-init.
func (s *componentSet) runsCommand() bool { return s != nil && s.command != nil }

// commandHasStarted reports whether the CMD that runs beside components, or is
// the init, has been started.
func (s *componentSet) commandHasStarted() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.started:
		return true
	default:
		return false
	}
}

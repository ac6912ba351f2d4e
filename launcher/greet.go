package launcher

import (
	"fmt"

	"containerd-shim-rich/launch"
)

// greet answers the first message of a launcher. It returns an error if that is
// of another version. There is no answer to an event, whose sender does not
// wait for one.
func (s *Server) greet(conn *launch.Conn, hello launch.Hello) error {
	if hello.Role == launch.RoleEvent && hello.Version == launch.EventVersion {
		return nil
	}
	if hello.Version != launch.Version {
		return s.refuseVersion(conn, hello)
	}
	if hello.Role == launch.RoleEvent {
		return nil
	}
	return conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleShim})
}

// refuseVersion ends the container if the launcher that is to run the command
// cannot be talked to.
func (s *Server) refuseVersion(conn *launch.Conn, hello launch.Hello) error {
	err := fmt.Errorf("the launcher has version %d of the launch protocol, this shim version %d: they were not installed together; "+
		"make the pod or the container anew, with programs of one release", hello.Version, launch.Version)
	_ = conn.Send(launch.Refuse{Reason: err.Error()}) // the other side may not even understand this
	if hello.Role == launch.RoleEvent || hello.Role == launch.RoleComponent || s.Service == nil && s.Child == nil {
		return err
	}
	if believed, do := s.Life.Unfit(err); believed {
		s.Mismatched()
		s.Act(do)
	}
	return err
}

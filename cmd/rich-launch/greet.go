package main

import (
	"errors"
	"fmt"

	"containerd-shim-rich/launch"
)

// greet tells the shim what the launcher is for, and takes its answer, which
// comes at once.
func greet(conn *launch.Conn, role string) error {
	if err := conn.Send(launch.Hello{Version: launch.Version, Role: role}); err != nil {
		return err
	}
	m, files, err := conn.Receive()
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("the shim did not answer a launcher with version %d of the protocol, it may have another: %w", launch.Version, err)
	}
	return checkShim(m)
}

// checkShim looks at the shim's first message. The two are installed
// together, but one of them may have been replaced.
func checkShim(m launch.Message) error {
	switch m := m.(type) {
	case launch.Hello:
		if m.Version == launch.Version {
			return nil
		}
		return fmt.Errorf("the shim has version %d of the launch protocol, this launcher version %d", m.Version, launch.Version)
	case launch.Refuse:
		return errors.New(m.Reason)
	}
	return fmt.Errorf("the shim answered with %T", m)
}

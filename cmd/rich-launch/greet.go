package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// dialShim connects to the shim. What is sent and not read does not hold up
// the launcher for long.
func dialShim() (*os.File, error) {
	file, err := launch.Dial(socket())
	if err != nil {
		return nil, err
	}
	timeout := unix.Timeval{Sec: reportTimeout}
	if err := unix.SetsockoptTimeval(int(file.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		file.Close()
		return nil, fmt.Errorf("set socket timeout: %w", err)
	}
	return file, nil
}

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

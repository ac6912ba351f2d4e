package main

import (
	"os"
	"time"

	"containerd-shim-rich/launch"
)

// eventTimeout is the most a shutdown may be held up by a shim that does not
// answer.
const eventTimeout = 3 * time.Second

// event tells the shim what the init is about to do. It always succeeds: the
// init runs it on its way down, where a failed command could only do harm.
// There is no answer to wait for, what was sent can be read after the sender
// is gone.
func event(name string) int {
	time.AfterFunc(eventTimeout, func() { os.Exit(0) })
	tell(name)
	return 0
}

// tellFailed tells the shim, of whatever version, that there will be no command:
// not every init minds that its service has failed.
func tellFailed() {
	time.AfterFunc(eventTimeout, func() { os.Exit(exitLauncher) })
	tell("failed")
}

func tell(name string) {
	file, err := launch.Dial(socket())
	if err != nil {
		return
	}
	conn := launch.NewConn(file, launch.MaxFromShim)
	if conn.Send(launch.Hello{Version: launch.EventVersion, Role: launch.RoleEvent}) == nil {
		_ = conn.Send(launch.Event{Name: name})
	}
	conn.Close()
}

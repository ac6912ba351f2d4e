// Command rich-launch is what the init of a rich container runs. It is bound
// read-only into the container as /run/rich/launch, beside the shim's socket,
// and needs nothing else there but /proc: no C library, no shell, no /etc.
//
//	launch app [NAME...]    run the image's own command (the CMD) for the shim, and components
//	launch command NAME...  run the CMD with the launcher's own streams, and components
//	launch component NAME   run a component of the host
//	launch stop             stop the CMD as the init would, and wait for its end
//	launch stop NAME        the same with a component, or with --components for all
//	launch event NAME       tell the shim what the init is about to do
//	launch state ARG...     tell the shim what a program prints, the init's state
//	launch run -- ARG...    become a program, without the shim (dumb-init mode)
//	launch env -- ARG...    become a program with the environment of the container
//	launch within N ARG...  run a program, and wait N seconds at the most
//	launch version          print the version
package main

import (
	"os"
	"path"
	"runtime"

	"containerd-shim-rich/launch"
)

// version and socketPath are set when the launcher is built, with -X.
var (
	version = "devel"
	// socketPath is where the shim's socket is in the container; empty
	// stands for beside the launcher, by the path that the init starts it
	// with. It is no environment variable: the container's own environment
	// must not decide whom the launcher obeys.
	socketPath string
)

const usage = `usage: launch app [NAME...]
       launch command NAME...
       launch component NAME [wait]
       launch stop [NAME | --components]
       launch event NAME
       launch state ARG...
       launch run [--] ARG...
       launch env [--] ARG...
       launch within SECONDS ARG...
       launch version
` + launch.Mark + "\n"

// Exit codes beside the CMD's own.
const (
	exitUsage    = 2
	exitLauncher = 125 // the launcher itself failed, before there was a CMD
	exitCannot   = 126 // the program cannot be executed
	exitNotFound = 127 // there is no such program
)

func init() {
	// Signal masks, credentials, capabilities and scheduling belong to a
	// thread. The main goroutine has to stay on the main thread, whose
	// attributes an exec keeps and a fork hands down.
	runtime.LockOSThread()
}

// socket returns where the shim listens.
func socket() string {
	if socketPath != "" {
		return socketPath
	}
	return path.Join(path.Dir(os.Args[0]), "shim.sock")
}

func main() { os.Exit(dispatch(os.Args[1:])) }

func dispatch(args []string) int {
	switch {
	case len(args) > 0 && args[0] == "app":
		return app(args[1:])
	case len(args) == 1 && args[0] == stageTwo:
		return execStage()
	case len(args) > 1 && args[0] == "command":
		return beside(args[1:])
	case (len(args) == 2 || len(args) == 3 && args[2] == waitForStop) && args[0] == "component":
		return component(args[1], len(args) == 3)
	case len(args) == 1 && args[0] == "stop":
		return stop()
	case len(args) == 2 && args[0] == "stop":
		return stopComponents(args[1])
	case len(args) == 2 && args[0] == "event":
		return event(args[1])
	case len(args) > 1 && args[0] == "state":
		return state(args[1:])
	case len(args) > 1 && args[0] == "run":
		return run(args[1:])
	case len(args) > 1 && args[0] == "env":
		return env(args[1:])
	case len(args) > 2 && args[0] == "within":
		return within(args[1], args[2:])
	case len(args) == 1 && args[0] == "version":
		os.Stdout.WriteString(version + "\n")
		return 0
	}
	os.Stderr.WriteString(usage)
	return exitUsage
}

// complain writes a reason as one line, in one write so that nothing comes
// between its parts.
func complain(w *os.File, reason string) {
	_, _ = w.WriteString("rich: " + reason + "\n")
}

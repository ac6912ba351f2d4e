// Command rich-launch is what the init of a rich container runs. It is bound
// read-only into the container as /run/rich/launch, beside the shim's socket,
// and needs nothing else there but /proc: no C library, no shell, no /etc.
//
//	launch app [NAME...]    run the image's own command for the shim, and components
//	launch command NAME...  run the command with the launcher's own streams, and components
//	launch component NAME   run a component of the host
//	launch stop             stop the command as the init would, and wait for its end
//	launch stop NAME        the same with a component, or with --components for all
//	launch event NAME       tell the shim what the init is about to do
//	launch state ARG...     tell the shim what a program prints, the init's state
//	launch run -- ARG...    become a program, without the shim (dumb-init mode)
//	launch env -- ARG...    become a program with the environment of the container
//	launch within N ARG...  run a program, and wait N seconds at the most
//	launch version          print the version
package main

import (
	"math"
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

// Exit codes beside the command's own.
const (
	exitUsage    = 2
	exitLauncher = 125 // the launcher itself failed, before there was a command
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

// verb is one thing that the launcher can be told to do.
type verb struct {
	name        string
	least, most int // how many arguments it takes
	run         func(args []string) (status int)
}

// anyNumber stands for no limit of the arguments.
const anyNumber = math.MaxInt

// verbs has a verb twice that does something else with an argument than
// without one.
var verbs = []verb{
	{"app", 0, anyNumber, app},
	{stageTwo, 0, 0, func([]string) int { return execStage() }},
	{"command", 1, anyNumber, beside},
	{"component", 1, 1, func(args []string) int { return component(args[0], false) }},
	{"component", 2, 2, stayingComponent},
	{"stop", 0, 0, func([]string) int { return stop() }},
	{"stop", 1, 1, func(args []string) int { return stopComponents(args[0]) }},
	{"event", 1, 1, func(args []string) int { return event(args[0]) }},
	{"state", 1, anyNumber, state},
	{"run", 1, anyNumber, run},
	{"env", 1, anyNumber, env},
	{"within", 2, anyNumber, func(args []string) int { return within(args[0], args[1:]) }},
	{"version", 0, 0, func([]string) int {
		os.Stdout.WriteString(version + "\n")
		return 0
	}},
}

// dispatch does what the arguments say and returns the launcher's exit status.
func dispatch(args []string) int {
	if len(args) == 0 {
		return misused()
	}
	name, args := args[0], args[1:]
	for _, v := range verbs {
		if v.name == name && v.least <= len(args) && len(args) <= v.most {
			return v.run(args)
		}
	}
	return misused()
}

// stayingComponent does not end with its component.
func stayingComponent(args []string) int {
	if args[1] != waitForStop {
		return misused()
	}
	return component(args[0], true)
}

// misused says how the launcher is used.
func misused() int {
	os.Stderr.WriteString(usage)
	return exitUsage
}

// complain writes a reason as one line, in one write so that nothing comes
// between its parts.
func complain(w *os.File, reason string) {
	_, _ = w.WriteString("rich: " + reason + "\n")
}

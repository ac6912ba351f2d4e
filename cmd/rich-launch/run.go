package main

import (
	"fmt"
	"os"
	"syscall"
)

// run becomes the program args name, after an optional "--". It returns the
// exit status if it cannot.
//
// Credentials, descriptors and environment stay as they are. The Go runtime
// has changed three things by now: it raised the soft NOFILE limit, which
// syscall.Exec undoes; it took the ignored signals other than HUP and INT,
// which come out with their default disposition; and it unblocked the signals
// it insists on (HUP, INT, QUIT, ABRT, TERM, CHLD, PROF, RTMIN and the faults).
// runc's own init is a Go program and does the same to every command.
func run(args []string) int {
	args = program(args)
	if len(args) == 0 {
		return misused()
	}
	return execProgram(args, os.Getenv("PATH"), os.Environ())
}

// program is what args name after an optional "--"; empty if that is nothing.
func program(args []string) []string {
	if args[0] == "--" {
		return args[1:]
	}
	return args
}

// execProgram becomes the program args[0], looked for in path, or says why it
// cannot and returns the exit status for that.
func execProgram(args []string, path string, environ []string) int {
	file, err := lookPath(args[0], path)
	if err == nil {
		err = execve(file, args, environ)
	}
	complain(os.Stderr, fmt.Sprintf("exec %s: %v", quote(args[0]), err))
	return int(programCode(err))
}

// execve is execve(2); it returns only if that failed.
func execve(path string, args, env []string) error {
	for {
		if err := syscall.Exec(path, args, env); err != syscall.EINTR {
			return err
		}
	}
}

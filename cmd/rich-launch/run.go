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
// runc's own init is a Go program and does the same to every CMD.
func run(args []string) int {
	if args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		os.Stderr.WriteString(usage)
		return exitUsage
	}
	path, err := lookPath(args[0], os.Getenv("PATH"))
	if err == nil {
		err = execve(path, args, os.Environ())
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

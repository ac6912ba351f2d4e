package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// maxState bounds what is read of a program's output, in bytes.
const maxState = 64

// state runs a program that prints the init's state when it is settled, and
// tells the shim. It always succeeds, like event.
func state(args []string) int {
	word, err := output(args)
	if err != nil {
		complain(os.Stderr, fmt.Sprintf("run %s: %v", quote(args[0]), err))
	} else if word = strings.TrimSpace(word); word != "" {
		return event(word)
	}
	return 0
}

// output returns the beginning of what a program prints. Its exit status says
// nothing more: that of systemctl tells the state as well.
func output(args []string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, w.Fd(), 2},
	})
	w.Close()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxState))
	for {
		_, waitErr := syscall.Wait4(pid, nil, 0, nil)
		if waitErr != syscall.EINTR {
			return string(b), err
		}
	}
}

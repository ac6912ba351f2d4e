package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// within runs a program and waits for it so many seconds at the most; then
// the program goes on by itself. An init that waits for what it starts must
// not wait for ever for a service.
func within(seconds string, args []string) int {
	n, err := strconv.ParseUint(seconds, 10, 16)
	if err != nil {
		return misused()
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The end of this process must not take the terminal's session along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		complain(os.Stderr, err.Error())
		return exitCannot
	}
	done := make(chan int, 1)
	go func() {
		_ = cmd.Wait() // its state says all
		done <- cmd.ProcessState.ExitCode()
	}()
	select {
	case code := <-done:
		return max(code, 0)
	case <-time.After(time.Duration(n) * time.Second):
		complain(os.Stderr, args[0]+" goes on after "+seconds+" s")
		return 0
	}
}

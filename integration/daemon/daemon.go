// Package daemon runs the daemons of a test: containerd, etcd, the kubelet.
// It needs nothing but Go's library, as the Kubernetes tests, which are a
// module of their own, have it too.
package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Daemon is one that can be started, and again after its end.
type Daemon struct {
	// Name is for errors.
	Name string
	// Args is argv. Args[0] is looked up in the PATH of this process.
	Args []string
	// Env comes beside the environment of this process, as NAME=VALUE.
	Env []string
	// Log is the file that its output is appended to.
	Log string

	command *exec.Cmd
	exited  chan struct{}
}

// Start starts it. It is killed if this process ends before it does, and a
// terminal's Ctrl-C is for this process alone.
func (d *Daemon) Start() error {
	log, err := os.OpenFile(d.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command, exited := exec.Command(d.Args[0], d.Args[1:]...), make(chan struct{})
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(), d.Env...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started := make(chan error)
	go func() {
		// The parent death signal follows the thread, not the process.
		runtime.LockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // ProcessState tells how it ended
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}
	d.command, d.exited = command, exited
	return nil
}

// Pid is that of the last start.
func (d *Daemon) Pid() int { return d.command.Process.Pid }

// Signal sends one to the daemon alone.
func (d *Daemon) Signal(s os.Signal) error { return d.command.Process.Signal(s) }

// Exited is closed when the daemon has ended.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// Kill ends it as a crash would, with no chance to put anything in order.
func (d *Daemon) Kill() error {
	if err := d.command.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", d.Name, err)
	}
	<-d.exited
	return nil
}

// Stop ends it by SIGTERM, and by SIGKILL after grace. One that does not run is
// no error.
func (d *Daemon) Stop(grace time.Duration) {
	if d.command == nil {
		return
	}
	_ = d.command.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.exited:
	case <-time.After(grace):
		_ = d.command.Process.Kill()
		<-d.exited
	}
}

// Ready waits until check succeeds, and not longer than limit. It fails at once
// when the daemon has ended.
func (d *Daemon) Ready(limit time.Duration, check func() error) error {
	ended := false
	err := Poll(limit, func() error {
		select {
		case <-d.exited:
			ended = true
			return nil
		default:
			return check()
		}
	})
	if ended {
		err = errors.New("ended: " + d.command.ProcessState.String())
	}
	if err != nil {
		return fmt.Errorf("%s: not ready: %w\n%s", d.Name, err, d.LogTail("", 20))
	}
	return nil
}

// LogTail returns the last lines of the log that contain text.
func (d *Daemon) LogTail(text string, lines int) string {
	content, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return strings.Join(found[max(0, len(found)-lines):], "")
}

// Poll calls check until it succeeds, and returns its last error after limit.
func Poll(limit time.Duration, check func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

package stdio

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// loggerGrace is how long a logging program may take to end once its
	// input has ended, before SIGTERM, and after that before it is killed.
	loggerGrace = 12 * time.Second
	// loggerHurry is the former of these when the shim is about to leave:
	// containerd's own shim sends SIGTERM at once.
	loggerHurry = 2 * time.Second
)

// Owner is what a logging program is told about its container.
type Owner struct {
	ID, Namespace string
	Loggers       *Loggers
}

// Loggers are the logging programs that are to end. The shim does not leave
// before them: nobody else would end one that does not do so by itself.
type Loggers struct {
	env     []string // of the programs
	running sync.WaitGroup
	leaving chan struct{} // closed when the shim is about to leave
}

// NewLoggers are none yet. env is the environment of those to come.
func NewLoggers(env []string) *Loggers { return &Loggers{env: env, leaving: make(chan struct{})} }

// End ends them all, or what of them does so until ctx ends.
func (l *Loggers) End(ctx context.Context) error {
	close(l.leaving)
	ended := make(chan struct{})
	go func() {
		l.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// logger is a program that takes a container's output, named by a URI
// binary:///path?key=value (containerd's docs/runtime-v2.md, IO).
type logger struct {
	cmd            *exec.Cmd
	all            *Loggers
	stdout, stderr *os.File // the process's ends
}

// startLogger starts the program and waits until it is ready or ctx ends: a program
// under "binary" closes its descriptor 5, one under "binary-v2" writes a
// byte to it.
func startLogger(ctx context.Context, u *url.URL, info Owner) (_ *logger, err error) {
	if u.Path == "" {
		return nil, fmt.Errorf("value %q: names no program: %w", u, errdefs.ErrInvalidArgument)
	}
	var pipes [3][2]*os.File // stdout, stderr, ready; each with reader and writer
	defer func() {
		for i, p := range pipes {
			for j, f := range p {
				if f != nil && (err != nil || i == 2 || j == 0) {
					f.Close()
				}
			}
		}
	}()
	for i := range pipes {
		if pipes[i][0], pipes[i][1], err = Pipe(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(u.Path, loggerArgs(u)...)
	cmd.Env = append(slices.Clip(info.Loggers.env), "CONTAINER_ID="+info.ID, "CONTAINER_NAMESPACE="+info.Namespace)
	cmd.ExtraFiles = []*os.File{pipes[0][0], pipes[1][0], pipes[2][1]}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start logging program: %w", err)
	}
	l := &logger{cmd: cmd, all: info.Loggers, stdout: pipes[0][1], stderr: pipes[1][1]}
	pipes[2][1].Close()
	ready, err := Pollable(pipes[2][0])
	pipes[2] = [2]*os.File{}
	if err != nil {
		return nil, errors.Join(err, l.kill())
	}
	defer ready.Close()
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return nil, errors.Join(fmt.Errorf("logging program %s is not ready: %w", u.Path, context.Cause(ctx)), l.kill())
	}
	if u.Scheme == "binary-v2" && n == 0 {
		return nil, errors.Join(fmt.Errorf("logging program %s ended before it was ready: %w", u.Path, err), l.kill())
	}
	return l, nil
}

// loggerArgs turns the query into arguments, each key followed by its value
// if there is one, in the order of the keys.
func loggerArgs(u *url.URL) []string {
	query := u.Query()
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var args []string
	for _, k := range keys {
		args = append(args, k)
		if v := query[k]; len(v) > 0 && v[0] != "" {
			args = append(args, v[0])
		}
	}
	return args
}

// Pipe makes a pipe whose ends are meant for other processes.
func Pipe() (r, w *os.File, err error) {
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

func (l *logger) kill() error {
	err := l.cmd.Process.Kill()
	_ = l.cmd.Wait() // its status says only that it was killed
	return err
}

// stop lets the program finish: its input has ended, then it is asked, then
// killed. It does not wait for that.
func (l *logger) stop() {
	l.all.running.Go(func() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = l.cmd.Wait()
		}()
		wait := func(leaving <-chan struct{}) bool {
			late := time.After(loggerGrace)
			for {
				select {
				case <-ended:
					return true
				case <-late:
					return false
				case <-leaving:
					late, leaving = time.After(loggerHurry), nil
				}
			}
		}
		if wait(l.all.leaving) {
			return
		}
		_ = l.cmd.Process.Signal(unix.SIGTERM)
		if !wait(nil) {
			_ = l.cmd.Process.Kill()
			wait(nil)
		}
	})
}

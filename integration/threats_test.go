package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

// Threats: a container that holds up its own end, or makes the host pay for it.

// killLimit is within what a task is gone after SIGKILL, whatever is in it.
const killLimit = 5 * time.Second

// endsByKill ends a task whose container does what it can against that.
func (r *task) endsByKill() {
	r.t.Helper()
	ctx, cancel := r.daemon.within(patience(killLimit))
	defer cancel()
	if err := r.Task.Kill(ctx, syscall.SIGKILL); err != nil {
		r.fatal("kill: %v", err)
	}
	if code := r.Wait(patience(killLimit)); code != 137 {
		r.t.Errorf("exit status %d", code)
	}
	if code := r.Delete(); code != 137 {
		r.t.Errorf("delete reports %d", code)
	}
}

// lingering is the descriptor of a connection whose last close takes hours.
func lingering(t *testing.T) *os.File {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer := <-accepted
	// Whatever still waits then is let go.
	t.Cleanup(func() { peer.Close(); listener.Close() })
	conn := c.(*net.TCPConn)
	if err := conn.SetLinger(30000); err != nil {
		t.Fatal(err)
	}
	full := make([]byte, 1<<20)
	for err == nil {
		if err := conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write(full)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	// A copy of the descriptor: what is closed here then is not the last.
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// sendFiles sends descriptors with a message; the kernel may refuse that.
func sendFiles(t *testing.T, c *net.UnixConn, message []byte, fds ...int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.Sendmsg(int(fd), message, unix.UnixRights(fds...), nil, 0) }); err != nil {
		t.Fatal(err)
	}
	if sent != nil && !errors.Is(sent, unix.EPERM) {
		t.Fatal(sent)
	}
}

// A descriptor whose last close takes hours is closed last by the shim, or by the kernel for it.
func TestT2LingeringDescriptor(t *testing.T) {
	t.Parallel()
	keep := []taskOption{withInit("dumb-init"), withRich("on-exit", "keep"), withUser(1000, 1000), withArgs("sh", "-c", ready+idle)}
	for name, opts := range map[string][]taskOption{
		"dumb-init": keep,
		// Only here the kernel (6.16 or newer) cannot refuse descriptors: one is expected.
		"dumb-init terminal": append([]taskOption{withTerminal()}, keep...),
		"systemd":            {withInit("systemd"), withArgs("sh", "-c", ready+idle)},
		"systemd terminal":   {withTerminal(), withInit("systemd"), withArgs("sh", "-c", ready+idle)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, imageBookworm, opts...)
			run.WaitOutput("ready", initLimit)
			dial := func() *net.UnixConn {
				t.Helper()
				var c *net.UnixConn
				eventually(t, runLimit, "connect", func() (err error) { c, err = run.dialShim(); return err })
				return c
			}
			var silent []*net.UnixConn
			for range 8 {
				silent = append(silent, dial())
			}
			// Not accepted before one of those is gone.
			held := lingering(t)
			late := dial()
			for _, message := range [][]byte{frame(4, 9, []byte{1, 0, 0, 0}), frame(0, 7, nil)} {
				sendFiles(t, late, message, int(held.Fd()), int(held.Fd()))
			}
			late.Close()
			if strings.HasPrefix(name, "systemd") {
				dir, err := os.Open(run.bundle("rich", "run"))
				if err != nil {
					t.Fatal(err)
				}
				defer dir.Close()
				notify, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), initmode.NotifySocket)})
				if err != nil {
					t.Fatal(err)
				}
				sendFiles(t, notify, []byte("STATUS=held"), int(held.Fd()))
				notify.Close()
			}
			go held.Close() // if the kernel has refused to send it, this one is the last
			for _, c := range silent {
				c.Close()
			}
			run.endsByKill()
		})
	}
}

// What a container makes the shim say, write and announce is bounded.
func TestT6HostLog(t *testing.T) {
	t.Parallel()
	run := startTask(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", initLimit)
	run.booted()
	told := func() (bytes int) {
		content, err := os.ReadFile(private.Log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if strings.Contains(line, run.ID) {
				bytes += len(line)
			}
		}
		return bytes
	}
	before := told()
	loud := strings.Repeat("\x01", 65000)
	for range 300 {
		c, err := run.dialShim()
		if err != nil {
			continue // its queue is full
		}
		_ = c.SetDeadline(time.Now().Add(runLimit))
		_ = launch.NewConn(c, launch.MaxFromShim).Send(launch.Hello{Version: launch.Version, Role: loud})
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}

	// Without a launcher of its own anybody may be it, and report one end after the other.
	if got := run.Exec("systemctl", "stop", "rich-app"); got.Code != 0 {
		t.Fatalf("stop: %+v", got)
	}
	watch := newFileWatch(t, run.bundle("rich", "run"), "app.json")
	starts := 0
	for range 400 {
		c, err := run.dialShim()
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(runLimit))
		conn := launch.NewConn(c, launch.MaxFromShim)
		if conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleService}) == nil {
			for {
				m, files, err := conn.Receive()
				for _, f := range files {
					f.Close()
				}
				if _, ok := m.(launch.Start); ok {
					starts++
					_ = conn.Send(launch.Exited{Status: 7, Requested: true})
				}
				if err != nil || m == nil {
					break
				}
			}
		}
		conn.Close()
	}
	if starts < 100 {
		t.Fatalf("only %d starts", starts)
	}
	if grown := told() - before; grown > 64<<10 {
		t.Errorf("the log has grown by %d bytes for %d lies", grown, starts)
	}
	if written := watch.count(t); written > 200 {
		t.Errorf("app.json was written %d times for %d starts", written, starts)
	}
	run.endsByKill()
}

// fileWatch counts how often a file of a folder is replaced.
type fileWatch struct {
	fd   int
	name string
}

func newFileWatch(t *testing.T, dir, name string) fileWatch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return fileWatch{fd, name}
}

func (w fileWatch) count(t *testing.T) (n int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		got, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < got; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
			name := buf[at+unix.SizeofInotifyEvent : at+unix.SizeofInotifyEvent+int(event.Len)]
			if strings.TrimRight(string(name), "\x00") == w.name {
				n++
			}
			at += unix.SizeofInotifyEvent + int(event.Len)
		}
	}
}

// While poststop hooks run, nobody has the number of pid 1 but by chance. Not parallel: that is no chance here.
func TestT7ReusedPID(t *testing.T) {
	n := newNotes(t)
	waits := script("touch /notes/begun", "sleep 3600")
	waits.Timeout = 600
	run, log := watch(t, imageBookworm, withInit("dumb-init"), n.mount(), withHookOption(t, "poststop", waits), withArgs("sh", "-c", "exit 3"))
	pid := int(run.Task.Pid())
	n.waitNote("begun")

	victim := exec.Command(buildPath("bin/probe"), "as-pid", strconv.Itoa(pid))
	stdin, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	victim.Stderr = os.Stderr
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	words := bufio.NewReader(stdout)
	if line, err := words.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	// It may be refused, but reaches nobody.
	for _, signal := range []syscall.Signal{40, syscall.SIGUSR1} {
		ctx, cancel := private.within(patience(20 * time.Second))
		if err := run.Task.Kill(ctx, signal); err == nil {
			t.Errorf("signal %d was delivered, to whom?", signal)
		}
		cancel()
	}
	stdin.Close()
	if line, err := words.ReadString('\n'); err != nil || line != "alive\n" {
		t.Errorf("the child of a foreign process is %q, %v", line, err)
	}
	if err := victim.Wait(); err != nil {
		t.Error(err)
	}
	ctx, cancel := private.within(callLimit)
	defer cancel()
	if err := run.Task.Kill(ctx, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	run.outcome(log, 3)
}

// launchers are the processes on the host that start a container's command.
func (r *task) launchers() (pids []int) {
	r.t.Helper()
	ctx, cancel := r.daemon.within(callLimit)
	defer cancel()
	all, err := r.Task.Pids(ctx)
	if err != nil {
		r.fatal("pids: %v", err)
	}
	for _, p := range all {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid)); err == nil && string(comm) == "rich-launch\n" {
			pids = append(pids, int(p.Pid))
		}
	}
	return pids
}

// A launcher that does not read holds up nobody but its command.
func TestT15StoppedLauncher(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{systemdBookworm, {"sysvinit", imageSysvinit, "sbin-init"}, {"runit", imageRunit, "sbin-init"}} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, v.image, v.with(withArgs("sh", "-c", "trap : USR1; trap 'exit 5' TERM; trap : 35; "+ready+idle))...)
			run.WaitOutput("ready", initLimit)
			launchers := run.launchers()
			if len(launchers) == 0 {
				t.Fatal("no launcher")
			}
			for _, pid := range launchers {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			send := func(signal syscall.Signal) error {
				t.Helper()
				ctx, cancel := context.WithTimeout(run.daemon.context(), patience(killLimit))
				defer cancel()
				err := run.Task.Kill(ctx, signal)
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					t.Fatalf("signal %d hangs: %v", signal, err)
				}
				return err
			}
			for i := range 400 {
				if err := send(syscall.SIGUSR1); err != nil {
					t.Fatalf("USR1 no. %d: %v", i, err)
				}
			}
			// Of a signal that is queued each counts, but the queue has an end.
			refused := 0
			for range 600 {
				if err := send(35); errdefs.IsUnavailable(err) {
					refused++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if refused == 0 {
				t.Error("there is no limit to what is kept for a launcher")
			}
			if err := send(syscall.SIGTERM); err != nil && !errdefs.IsUnavailable(err) {
				t.Error(err)
			}
			run.running()
			run.endsByKill()
		})
	}
}

// A logging program that heeds neither the end of its input nor SIGTERM is ended before the shim leaves.
func TestT16DeafLogger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, pidFile := filepath.Join(dir, "logger"), filepath.Join(dir, "pid")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntrap '' TERM\necho $$ >"+pidFile+"\nexec 5>&-\nwhile :; do sleep 1; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := newTask(t, imageBusybox, withInit("none"), withArgs("true"))
	run.replace(fixedIO{Stdout: "binary://" + program, Stderr: "binary://" + program}.create)
	run.Start()
	if code := run.Wait(runLimit); code != 0 {
		t.Errorf("exit status %d", code)
	}
	run.Delete()
	pid, err := strconv.Atoi(strings.TrimSpace(readLines(t, pidFile)[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	eventually(t, patience(time.Minute), "the end of the logging program", func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

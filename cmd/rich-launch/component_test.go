package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// serveComponent starts `launch component agent` and gives it an order.
func serveComponent(t *testing.T, order launch.Run, more ...string) *shim {
	t.Helper()
	s := serveVerb(t, launch.RoleComponent, append([]string{launcher, "component", "agent"}, more...))
	if m := s.receive(); m != (launch.Component{Name: "agent"}) {
		t.Fatalf("got %+v, want Component", m)
	}
	if order.Record.Args != nil {
		s.send(order, s.cmdStdio...)
		for _, f := range s.cmdStdio {
			f.Close()
		}
	}
	return s
}

// runOnce is an order for a script that is not started again.
func runOnce(script string) launch.Run {
	return launch.Run{Record: sh(script), Delay: time.Millisecond, MaxDelay: time.Hour, StopTimeout: time.Minute}
}

func (s *shim) wants(want ...launch.Message) {
	s.t.Helper()
	for _, w := range want {
		m := s.receive()
		if started, ok := m.(launch.Started); ok {
			started.PID = 0
			m = started
		}
		if m != w {
			s.t.Fatalf("got %T%+v, want %T%+v", m, m, w, w)
		}
	}
}

func TestComponentEnds(t *testing.T) {
	s := serveComponent(t, runOnce("echo out; echo err >&2; exit 3"))
	s.wants(launch.Started{}, launch.Ready{}, launch.ComponentExited{Code: 3, Again: -1})
	s.ended(3)
	if out, err := s.read(s.stdout), s.read(s.stderr); out != "out\n" || err != "err\n" {
		t.Errorf("stdout %q, stderr %q", out, err)
	}
}

func TestComponentRestarts(t *testing.T) {
	order := runOnce("echo x >>count; n=$(wc -l <count); [ $n != 2 ] || kill -SEGV $$; exit $((n % 5))")
	order.Restart, order.MaxDelay = launch.RestartOnFailure, 4*time.Millisecond
	order.Delay = time.Millisecond
	order.Record.Cwd = t.TempDir()
	// A run of MaxDelay or more would begin with the first pause again.
	order.MaxDelay = time.Hour
	s := serveComponent(t, order)
	s.wants(
		launch.Started{}, launch.Ready{}, launch.ComponentExited{Code: 1, Again: 1},
		launch.Started{}, launch.Ready{}, launch.ComponentExited{Signal: 11, Again: 2},
		launch.Started{}, launch.Ready{}, launch.ComponentExited{Code: 3, Again: 4},
		launch.Started{}, launch.Ready{}, launch.ComponentExited{Code: 4, Again: 8},
		launch.Started{}, launch.Ready{}, launch.ComponentExited{Again: -1})
	s.ended(0)
}

func TestComponentCannotBeStarted(t *testing.T) {
	order := runOnce("")
	order.Record.Args = []string{"/no/such"}
	order.Restart = launch.RestartAlways
	s := serveComponent(t, order)
	const reason = `exec "/no/such": no such file or directory`
	for _, again := range []int32{1, 2} {
		s.wants(launch.Failed{Code: 127, Reason: reason}, launch.ComponentExited{Code: 127, Again: again})
	}
	line, _ := bufio.NewReader(s.stderr).ReadString('\n')
	if line != "rich: "+reason+"\n" {
		t.Errorf("stderr %q", line)
	}
	s.signal(syscall.SIGTERM)
}

// TERM stops it in order, KILL comes after the time, and both end the launcher.
func TestComponentStops(t *testing.T) {
	order := runOnce("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	order.Restart = launch.RestartAlways
	s := serveComponent(t, order)
	s.wants(launch.Started{}, launch.Ready{})
	s.line("ready")
	s.signal(syscall.SIGTERM)
	s.wants(launch.ComponentExited{Code: 7, Again: -1, Requested: true})
	s.ended(7)

	order = runOnce("trap '' TERM; echo ready; while :; do sleep 0.05; done")
	order.StopTimeout = 100 * time.Millisecond
	s = serveComponent(t, order)
	s.wants(launch.Started{}, launch.Ready{})
	s.line("ready")
	s.signal(syscall.SIGTERM)
	s.wants(launch.ComponentExited{Signal: 9, Again: -1, Requested: true})
	s.ended(137)
}

// line expects a line of the component's stdout.
func (s *shim) line(want string) {
	s.t.Helper()
	got := make([]byte, len(want)+1)
	if _, err := s.stdout.Read(got); err != nil || string(got) != want+"\n" {
		s.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// Other signals are the component's.
func TestComponentSignals(t *testing.T) {
	s := serveComponent(t, runOnce("trap 'exit 4' HUP; echo ready; while :; do sleep 0.05; done"))
	s.wants(launch.Started{}, launch.Ready{})
	s.line("ready")
	s.signal(syscall.SIGHUP)
	s.wants(launch.ComponentExited{Code: 4, Again: -1})
	s.ended(4)
}

// Before its order, the launcher stops at once; with wait it does not end by
// itself.
func TestComponentWaits(t *testing.T) {
	s := serveComponent(t, launch.Run{})
	s.signal(syscall.SIGTERM)
	s.ended(0)

	s = serveComponent(t, launch.Run{})
	s.send(launch.Refuse{Reason: "no"})
	s.ended(0)
	if got := s.log.String(); got != "rich: component agent: no\n" {
		t.Errorf("the launcher says %q", got)
	}

	s = serveComponent(t, runOnce("exit 3"), waitForStop)
	s.wants(launch.Started{}, launch.Ready{}, launch.ComponentExited{Code: 3, Again: -1})
	if err := s.conn.Send(launch.Line{Text: "still there"}); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGTERM)
	_ = s.launcher.Wait()
	if code := s.launcher.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

// A stop that comes together with the order, in whichever order they are
// looked at, ends the launcher.
func TestComponentStopsWithOrder(t *testing.T) {
	for range 10 {
		s := serveComponent(t, launch.Run{})
		s.signal(syscall.SIGSTOP)
		s.send(runOnce("exec sleep 1000"), s.cmdStdio...)
		s.signal(syscall.SIGTERM)
		s.signal(syscall.SIGCONT)
		var last launch.Message
		for {
			m, _, err := s.conn.Receive()
			// The latter if it has left without reading all.
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				break
			}
			if err != nil {
				t.Fatalf("after %+v: %v", last, err)
			}
			last = m
		}
		if ended, ok := last.(launch.ComponentExited); !ok || !ended.Requested || ended.Again >= 0 {
			t.Errorf("the last word is %T %+v", last, last)
		}
	}
}

// What a component leaves in its process group ends with it.
func TestComponentGroup(t *testing.T) {
	s := serveComponent(t, runOnce("sleep 1000 & echo $!; exit 0"))
	s.wants(launch.Started{}, launch.Ready{}, launch.ComponentExited{Again: -1})
	line, _ := bufio.NewReader(s.stdout).ReadString('\n')
	left, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for ; ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(left) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it lives on")
		}
	}
	s.ended(0)
}

func TestComponentReadyByCommand(t *testing.T) {
	order := runOnce("trap 'exit 0' TERM; sleep 0.3; echo >up; while :; do sleep 0.05; done")
	order.Record.Cwd = t.TempDir()
	order.Ready = []string{"test", "-e", "up"}
	s := serveComponent(t, order)
	s.wants(launch.Started{}, launch.Ready{})
	if _, err := os.Stat(order.Record.Cwd + "/up"); err != nil {
		t.Error("ready too early")
	}
	s.signal(syscall.SIGTERM)
	s.wants(launch.ComponentExited{Again: -1, Requested: true})
	s.ended(0)
}

func TestComponentReadyByPort(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	order := runOnce("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
	order.ReadyPort = uint16(address.(*unix.SockaddrInet6).Port)
	s := serveComponent(t, order)
	s.wants(launch.Started{})
	s.line("ready")
	// Bound, but nobody listens: not ready, whatever time has passed.
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	s.wants(launch.Ready{})
	s.signal(syscall.SIGTERM)
	s.wants(launch.ComponentExited{Again: -1, Requested: true})
	s.ended(0)
}

// A process is put under its limits before it is the component.
func TestComponentLimits(t *testing.T) {
	s := serveComponent(t, launch.Run{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.send(launch.Limits{}, w, w)
	s.send(runOnce("echo $$"), s.cmdStdio...)
	for _, f := range append(s.cmdStdio, w) {
		f.Close()
	}
	s.wants(launch.Started{}, launch.Ready{}, launch.ComponentExited{Again: -1})
	s.ended(0)
	pid := strings.TrimSpace(s.read(s.stdout))
	if got := s.read(r); got != pid+pid {
		t.Errorf("got %q, want the pid %s twice", got, pid)
	}
}

func TestStopComponent(t *testing.T) {
	s := serveComponent(t, runOnce("trap 'sleep 0.3; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
	s.wants(launch.Started{}, launch.Ready{})
	s.line("ready")
	if code := stopThose(func(int) bool { return false }); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"other", "agent"} {
		stop := stopCommand(t, name)
		if err := stop.Start(); err != nil {
			t.Fatal(err)
		}
		if name == "agent" {
			s.wants(launch.ComponentExited{Code: 5, Again: -1, Requested: true})
			s.ended(5)
		}
		if err := stop.Wait(); err != nil {
			t.Error(err)
		}
	}
}

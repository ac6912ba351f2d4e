package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// shim plays the shim's side for one launcher.
type shim struct {
	t        testing.TB
	conn     *launch.Conn
	launcher *exec.Cmd
	log      bytes.Buffer // the launcher's own stderr

	// The command's stdio.
	stdin          *os.File
	stdout, stderr *os.File
	// The other ends, which go to the command.
	cmdStdio []*os.File
}

// serve starts `launch app`, by way of the given words, and answers it up to
// its Hello.
func serve(t testing.TB, prefix ...string) *shim {
	t.Helper()
	return serveVerb(t, launch.RoleService, append(prefix, launcher, "app"))
}

// serveVerb is serve for any command line with the launcher.
func serveVerb(t testing.TB, role string, args []string) *shim {
	t.Helper()
	s := meet(t, role, args)
	s.send(launch.Hello{Version: launch.Version, Role: launch.RoleShim})
	return s
}

// meet is serveVerb without the shim's own Hello.
func meet(t testing.TB, role string, args []string) *shim {
	t.Helper()
	dir, err := os.MkdirTemp("", "app") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "shim.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(patience))
	// For launchers that are not root.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "shim.sock"), 0o666)); err != nil {
		t.Fatal(err)
	}

	s := &shim{t: t}
	s.launcher = exec.Command(args[0], args[1:]...)
	s.launcher.Dir = dir
	s.launcher.Stderr = &s.log
	// What a descriptor leaked by the init looks like.
	s.launcher.ExtraFiles = []*os.File{os.Stderr}
	if err := s.launcher.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.launcher.Process.Kill()
		_ = s.launcher.Wait()
	})
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	s.conn = launch.NewConn(c, launch.MaxFromContainer)
	t.Cleanup(func() { s.conn.Close() })
	s.conn.SetDeadline(time.Now().Add(patience))
	if m := s.receive(); m != (launch.Hello{Version: launch.Version, Role: role}) {
		t.Fatalf("got %+v, want Hello", m)
	}

	for i, f := range []**os.File{&s.stdin, &s.stdout, &s.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r, w = w, r
		}
		*f = r
		s.cmdStdio = append(s.cmdStdio, w)
		t.Cleanup(func() { r.Close(); w.Close() })
		r.SetDeadline(time.Now().Add(patience))
	}
	return s
}

func (s *shim) receive() launch.Message {
	s.t.Helper()
	m, files, err := s.conn.Receive()
	if err != nil {
		s.t.Fatalf("receive: %v; the launcher says %q", err, s.log.String())
	}
	if len(files) != 0 {
		s.t.Fatalf("%T came with files", m)
	}
	return m
}

func (s *shim) send(m launch.Message, files ...*os.File) {
	s.t.Helper()
	if err := s.conn.Send(m, files...); err != nil {
		s.t.Fatal(err)
	}
}

// order sends the record and the command's stdio.
func (s *shim) order(r launch.Record) {
	s.t.Helper()
	s.send(launch.Start{Record: r}, s.cmdStdio...)
	for _, f := range s.cmdStdio {
		f.Close()
	}
}

// start has the command started and returns its pid.
func (s *shim) start(r launch.Record) int {
	s.t.Helper()
	s.order(r)
	m, ok := s.receive().(launch.Started)
	if !ok {
		s.t.Fatalf("got %+v, want Started", m)
	}
	return int(m.PID)
}

// exited expects the command to end with status, and the launcher with the same.
func (s *shim) exited(status uint32, requested bool) {
	s.t.Helper()
	want := launch.Exited{Status: status, Requested: requested}
	if m := s.receive(); m != want {
		s.t.Errorf("got %+v, want %+v", m, want)
	}
	s.ended(int(status))
}

// ended expects the connection to close and the launcher to exit with code.
func (s *shim) ended(code int) {
	s.t.Helper()
	if m, _, err := s.conn.Receive(); !errors.Is(err, io.EOF) {
		s.t.Errorf("got %+v, %v, want EOF", m, err)
	}
	_ = s.launcher.Wait()
	if got := s.launcher.ProcessState.ExitCode(); got != code {
		s.t.Errorf("the launcher exited with %d, want %d; it says %q", got, code, s.log.String())
	}
}

// failed expects the command not to be started, with a reason in the message, on
// its stderr and nowhere else.
func (s *shim) failed(code uint32, reason string) {
	s.t.Helper()
	m := s.receive()
	f, ok := m.(launch.Failed)
	if !ok || f.Code != code || f.Reason != reason {
		s.t.Errorf("got %+v, want code %d and %s", m, code, reason)
	}
	if got := s.read(s.stderr); got != "rich: "+reason+"\n" {
		s.t.Errorf("stderr %q", got)
	}
	s.ended(int(code))
	if s.log.Len() != 0 {
		s.t.Errorf("the launcher says %q", s.log.String())
	}
}

func (s *shim) read(f *os.File) string {
	s.t.Helper()
	b, err := io.ReadAll(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *shim) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.launcher.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// sh is a record for a shell command.
func sh(script string) launch.Record {
	return launch.Record{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/"}
}

// cat is a record for a program that waits until stdin is closed, and does
// nothing to what it was started with that /proc would show.
func cat() launch.Record {
	return launch.Record{Args: []string{"cat"}, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/"}
}

func proc(t testing.TB, pid int, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// status returns a field of /proc/PID/status.
func status(t testing.TB, pid int, field string) string {
	t.Helper()
	for line := range strings.Lines(proc(t, pid, "status")) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, pid)
	return ""
}

func wantStatus(t testing.TB, pid int, want map[string]string) {
	t.Helper()
	for field, value := range want {
		if got := status(t, pid, field); got != value {
			t.Errorf("%s is %q, want %q", field, got, value)
		}
	}
}

// rlimit returns a row of /proc/PID/limits as "soft hard".
func rlimit(t testing.TB, pid int, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + ` +(\S+) +(\S+)`).FindStringSubmatch(proc(t, pid, "limits"))
	if m == nil {
		t.Fatalf("no %s in /proc/%d/limits", name, pid)
	}
	return m[1] + " " + m[2]
}

func TestB1Environment(t *testing.T) {
	env := []string{
		"A=hello world", `B=it's "quoted" \ back\nslash`, "C=line1\nline2\n", "D=  lead and trail  ", "E=", "F=a=b=c",
		"G=#notcomment", `H=ends with backslash\`, "I=$HOME ${X} %h %n %%", "J=\ttab", "K=ü漢\xff",
		"L=" + strings.Repeat("x", 100<<10), "DUP=1", "HOME=/somewhere", "DUP=2", "PATH=/usr/bin:/bin",
		"GODEBUG=inittrace=1", "GOMAXPROCS=3", "N=\n[Service]\nExecStartPre=/bin/touch /pwned\n",
	}
	s := serve(t)
	r := cat()
	r.Env = env
	pid := s.start(r)
	want := strings.Join(slices.DeleteFunc(slices.Clone(env), func(e string) bool { return e == "DUP=1" }), "\x00") + "\x00"
	if got := proc(t, pid, "environ"); got != want {
		t.Errorf("got %.2000q, want %.2000q", got, want)
	}
	s.stdin.Close()
	s.exited(0, false)
}

func TestB2Arguments(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		stdout string // unless the arguments, each ended by NUL
	}{
		"printargs": {args: []string{
			"printargs", "", "a b", "  ", "'", `"`, `\`, `\x41`, "$HOME", "${HOME}", "$(id)", "`id`", "%n", "%%", "100%", ";", "&&", "-",
			"--", "*", "~", "#c", "a\nb", "\tt", "\xff", "\n[Service]\nExecStartPre=/bin/touch /pwned\n", "漢",
		}},
		"many":           {args: append([]string{"printargs"}, slices.Repeat([]string{strings.Repeat("y", 1000)}, 1000)...)},
		"podman#9176":    {args: []string{"sh", "-c", "kill -0 $$ && echo alive"}, stdout: "alive\n"},
		"rkt#321":        {args: []string{"/bin/bash", "-c", "echo a; echo b; test -d /dev && echo c"}, stdout: "a\nb\nc\n"},
		"rkt#1680":       {args: []string{"/bin/sh", "-c", "\\\n echo foo \\\n && echo bar\n"}, stdout: "foo\nbar\n"},
		"a relative one": {args: []string{"./printargs", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.stdout == "" {
				test.stdout = strings.Join(test.args, "\x00") + "\x00"
			}
			s := serve(t)
			s.start(launch.Record{Args: test.args, Env: []string{"PATH=" + helpers + ":/usr/bin:/bin"}, Cwd: helpers})
			if got := s.read(s.stdout); got != test.stdout {
				t.Errorf("got %.500q, want %.500q", got, test.stdout)
			}
			s.exited(0, false)
		})
	}
}

// TestB2ArgumentZero looks programs up under names a unit file or a shell
// would take for something else.
func TestB2ArgumentZero(t *testing.T) {
	for _, name := range []string{"-bash", "@x", "- x", ":x", "+x", "!x", "!!x", "a b", "%n", "\n"} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "path")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.Symlink("/bin/cat", filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			s := serve(t)
			pid := s.start(launch.Record{Args: []string{name, "-"}, Env: []string{"PATH=/nowhere:" + dir}, Cwd: "/"})
			if got := proc(t, pid, "cmdline"); got != name+"\x00-\x00" {
				t.Errorf("got %q", got)
			}
			s.stdin.Close()
			s.exited(0, false)
		})
	}
}

func TestB6User(t *testing.T) {
	const netBind, chown = 1 << unix.CAP_NET_BIND_SERVICE, 1 << unix.CAP_CHOWN
	for name, test := range map[string]struct {
		change func(r *launch.Record)
		want   map[string]string
	}{
		"a uid without a passwd line": {
			func(r *launch.Record) {
				r.UID, r.Groups, r.Umask, r.NoNewPrivileges = 1000660000, []uint32{2000, 3000}, new(uint32(0o77)), true
			},
			map[string]string{
				"Uid": "1000660000 1000660000 1000660000 1000660000", "Gid": "0 0 0 0", "Groups": "2000 3000",
				"Umask": "0077", "NoNewPrivs": "1", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
			},
		},
		"uid and gid": {
			func(r *launch.Record) { r.UID, r.GID, r.Umask = 1234, 5678, new(uint32(0o22)) },
			map[string]string{"Uid": "1234 1234 1234 1234", "Gid": "5678 5678 5678 5678", "Groups": "", "Umask": "0022", "NoNewPrivs": "0"},
		},
		"capabilities": {
			func(r *launch.Record) {
				r.UID, r.GID = 1234, 5678
				r.Capabilities = &launch.Capabilities{
					Bounding: netBind | chown, Effective: netBind, Permitted: netBind | chown, Inheritable: netBind, Ambient: netBind,
				}
			},
			map[string]string{
				"CapBnd": "0000000000000401", "CapInh": "0000000000000400",
				"CapPrm": "0000000000000400", "CapEff": "0000000000000400", "CapAmb": "0000000000000400",
			},
		},
		"an ambient capability that is not inheritable": {
			func(r *launch.Record) {
				r.UID = 1234
				r.Capabilities = &launch.Capabilities{Bounding: netBind, Permitted: netBind, Effective: netBind, Ambient: netBind}
			},
			map[string]string{"CapBnd": "0000000000000400", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000"},
		},
		"root": {
			func(r *launch.Record) {
				r.Capabilities = &launch.Capabilities{
					Bounding: netBind | chown | 1<<63, Effective: netBind | chown, Permitted: netBind | chown,
				}
			},
			map[string]string{
				"Uid": "0 0 0 0", "Groups": "", "CapBnd": "0000000000000401", "CapInh": "0000000000000000",
				"CapPrm": "0000000000000401", "CapEff": "0000000000000401",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			r := cat()
			test.change(&r)
			pid := s.start(r)
			wantStatus(t, pid, test.want)
			for fd := range 3 {
				var st unix.Stat_t
				if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &st); err != nil || st.Uid != r.UID {
					t.Errorf("descriptor %d belongs to %d, %v", fd, st.Uid, err)
				}
			}
			s.stdin.Close()
			s.exited(0, false)
		})
	}
}

// TestB6Home: where HOME comes from is the passwd file of this machine.
func TestB6Home(t *testing.T) {
	for name, test := range map[string]struct {
		uid  uint32
		env  []string
		want string
	}{
		"root":    {0, nil, homeOf(0, "/etc/passwd")},
		"unknown": {1000660000, nil, "/"},
		"empty":   {1000660000, []string{"HOME=/x", "HOME="}, "/"},
		"given":   {1000660000, []string{"HOME=/x"}, "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			r := cat()
			r.UID = test.uid
			r.Env = append(r.Env, test.env...)
			if got, want := proc(t, s.start(r), "environ"), "PATH=/usr/bin:/bin\x00HOME="+test.want+"\x00"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			s.stdin.Close()
			s.exited(0, false)
		})
	}
}

func TestB6WorkingDirectory(t *testing.T) {
	base, err := os.MkdirTemp("", "cwd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	started := func(t *testing.T, s *shim, r launch.Record) {
		t.Helper()
		pid := s.start(r)
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || got != r.Cwd {
			t.Errorf("cwd %s, %v, want %s", got, err, r.Cwd)
		}
		s.stdin.Close()
		s.exited(0, false)
	}
	t.Run("missing", func(t *testing.T) {
		r := cat()
		r.UID, r.Umask, r.Cwd = 1234, new(uint32(0o77)), base+"/new/deep"
		started(t, serve(t), r)
		for _, dir := range []string{base + "/new", r.Cwd} {
			var st unix.Stat_t
			if err := unix.Stat(dir, &st); err != nil || st.Uid != 0 || st.Mode&0o7777 != 0o755 {
				t.Errorf("%s: owner %d, mode %o, %v", dir, st.Uid, st.Mode, err)
			}
		}
	})
	t.Run("closed to root", func(t *testing.T) {
		r := cat()
		r.UID, r.Cwd = 1234, base+"/private"
		if err := os.Mkdir(r.Cwd, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.Cwd, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		started(t, serve(t, "setpriv", "--bounding-set=-dac_override,-dac_read_search"), r)
	})
	t.Run("closed to all", func(t *testing.T) {
		s := serve(t, "setpriv", "--bounding-set=-dac_override,-dac_read_search")
		r := cat()
		r.UID, r.Cwd = 1235, base+"/private"
		s.order(r)
		s.failed(126, fmt.Sprintf(`exec "cat": change to cwd "%s": permission denied`, r.Cwd))
	})
	t.Run("a file", func(t *testing.T) {
		s := serve(t)
		r := cat()
		r.Cwd = "/etc/passwd"
		s.order(r)
		s.failed(126, `exec "cat": change to cwd "/etc/passwd": not a directory`)
	})
	t.Run("relative", func(t *testing.T) {
		s := serve(t)
		r := cat()
		r.Cwd = "etc"
		s.order(r)
		s.failed(126, `exec "cat": cwd "etc" is not an absolute path`)
	})
}

func TestB7Limits(t *testing.T) {
	s := serve(t)
	r := cat()
	r.UID = 1234
	r.OOMScoreAdj = new(985)
	r.Rlimits = []launch.Rlimit{
		{Resource: unix.RLIMIT_NOFILE, Soft: 300, Hard: 4000},
		{Resource: unix.RLIMIT_CORE},
		{Resource: unix.RLIMIT_MEMLOCK, Soft: 4096, Hard: 8192},
	}
	r.IOPriority = &launch.IOPriority{Class: 2, Priority: 6}
	r.Scheduler = &launch.Scheduler{Policy: unix.SCHED_BATCH, Nice: 5}
	pid := s.start(r)
	for name, want := range map[string]string{"Max open files": "300 4000", "Max core file size": "0 0", "Max locked memory": "4096 8192"} {
		if got := rlimit(t, pid, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := proc(t, pid, "oom_score_adj"); got != "985\n" {
		t.Errorf("oom_score_adj %q", got)
	}
	if prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0); errno != 0 || prio != 2<<13|6 {
		t.Errorf("io priority %#x, %v", prio, errno)
	}
	if attr, err := unix.SchedGetAttr(pid, 0); err != nil || attr.Policy != unix.SCHED_BATCH || attr.Nice != 5 {
		t.Errorf("scheduler %+v, %v", attr, err)
	}
	s.stdin.Close()
	s.exited(0, false)
}

// TestB7Untouched: the runtime raises the soft NOFILE limit of both stages,
// the command must not see that.
func TestB7Untouched(t *testing.T) {
	s := serve(t, "sh", "-c", `ulimit -Sn 500; ulimit -Hn 5000; exec "$0" "$@"`)
	pid := s.start(cat())
	if got := rlimit(t, pid, "Max open files"); got != "500 5000" {
		t.Errorf("got %s", got)
	}
	s.stdin.Close()
	s.exited(0, false)
}

// TestB7Tight sets limits that the second stage has to live with itself.
func TestB7Tight(t *testing.T) {
	s := serve(t)
	r := sh("echo fine")
	r.UID = 1000660000
	r.Args = append(r.Args, slices.Repeat([]string{strings.Repeat("z", 1000)}, 100)...)
	r.Rlimits = []launch.Rlimit{
		{Resource: unix.RLIMIT_NOFILE, Soft: 4, Hard: 4}, // the program's dynamic linker takes one
		{Resource: unix.RLIMIT_NPROC, Soft: 1, Hard: 1},
		{Resource: unix.RLIMIT_AS, Soft: 64 << 20, Hard: 64 << 20},
		{Resource: unix.RLIMIT_DATA, Soft: 16 << 20, Hard: 16 << 20},
	}
	r.Capabilities = &launch.Capabilities{}
	s.start(r)
	if got := s.read(s.stdout); got != "fine\n" {
		t.Errorf("got %q, stderr %q", got, s.read(s.stderr))
	}
	s.exited(0, false)
}

func TestB7CannotRaise(t *testing.T) {
	s := serve(t)
	r := sh("exit 0")
	// More than the kernel's own maximum, which nobody may have.
	r.Rlimits = []launch.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 1 << 40, Hard: 1 << 41}}
	s.order(r)
	s.failed(126, `exec "sh": set RLIMIT_NOFILE to soft 1099511627776, hard 2199023255552: operation not permitted`)
}

// TestProcess looks at what must not come down from the init.
func TestProcess(t *testing.T) {
	s := serve(t, "env", "--ignore-signal=PIPE,HUP,INT,QUIT,USR1,34,64", "--block-signal=TERM,USR2,40")
	pid := s.start(cat())
	none := "0000000000000000"
	wantStatus(t, pid, map[string]string{"SigIgn": none, "SigBlk": none, "SigCgt": none, "SigPnd": none, "ShdPnd": none})
	if got := proc(t, pid, "comm"); got != "cat\n" {
		t.Errorf("comm %q", got)
	}
	// Its dynamic linker has a descriptor open for a moment.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err == nil && len(fds) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("descriptors %v, %v", fds, err)
			break
		}
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d of process %d, %v", sid, pid, err)
	}
	if got, want := status(t, pid, "PPid"), strconv.Itoa(s.launcher.Process.Pid); got != want {
		t.Errorf("parent %s, want %s", got, want)
	}
	s.stdin.Close()
	s.exited(0, false)
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]uint32{
		"exit 0": 0, "exit 42": 42, "exit 255": 255, "kill -SEGV $$": 139, "kill -KILL $$": 137, "kill -TERM $$": 143,
		"exec true": 0,
	} {
		t.Run(script, func(t *testing.T) {
			s := serve(t)
			s.start(sh(script))
			s.exited(want, false)
		})
	}
}

func TestChildLeftBehind(t *testing.T) {
	s := serve(t)
	// It keeps the command's stdin and nothing else.
	s.start(sh("cat >/dev/null 2>&1 <&0 & exit 3"))
	if got := s.read(s.stdout); got != "" {
		t.Errorf("stdout %q", got)
	}
	s.exited(3, false)
}

// TestOutput: what a command wrote before it ended is all there, apart and whole.
func TestB24Output(t *testing.T) {
	s := serve(t)
	r := sh(`echo out; echo err >&2; head -c 300000 /dev/zero | tr '\0' x; echo self >/dev/stderr; echo last`)
	r.UID = 1000
	s.start(r)
	if got, want := s.read(s.stdout), "out\n"+strings.Repeat("x", 300000)+"last\n"; got != want {
		t.Errorf("stdout of %d bytes, want %d", len(got), len(want))
	}
	if got := s.read(s.stderr); got != "err\nself\n" {
		t.Errorf("stderr %q", got)
	}
	s.exited(0, false)
}

func TestB24Input(t *testing.T) {
	s := serve(t)
	s.start(cat())
	want := "binary \x00\xff\n"
	if _, err := io.WriteString(s.stdin, want); err != nil {
		t.Fatal(err)
	}
	s.stdin.Close()
	if got := s.read(s.stdout); got != want {
		t.Errorf("got %q", got)
	}
	s.exited(0, false)
}

// TestBlockingStdio: a shim's pipe may be in non-blocking mode; runc's commands
// never see such.
func TestBlockingStdio(t *testing.T) {
	s := serve(t)
	f := s.cmdStdio[1]
	// Send puts a file into blocking mode that it knows to be in the other
	// one; this it does not know.
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	s.start(cat())
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	s.stdin.Close()
	s.exited(0, false)
}

func TestCannotStart(t *testing.T) {
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("plain", "text", 0o644)
	write("garbage", "text", 0o755)
	write("orphan", "#!/no/such/interpreter\n", 0o755)
	write("private", "#!/bin/sh\n", 0o700)

	for name, test := range map[string]struct {
		change func(r *launch.Record)
		code   uint32
		reason string
	}{
		"not in PATH":     {func(r *launch.Record) { r.Args[0] = "foo" }, 127, `exec "foo": executable file not found in $PATH`},
		"no PATH":         {func(r *launch.Record) { r.Env = nil }, 127, `exec "sh": executable file not found in $PATH`},
		"the last PATH":   {func(r *launch.Record) { r.Env = append(r.Env, "PATH=/nowhere") }, 127, `exec "sh": executable file not found in $PATH`},
		"no such file":    {func(r *launch.Record) { r.Args[0] = "/no\nfoo" }, 127, `exec "/no\nfoo": no such file or directory`},
		"an empty name":   {func(r *launch.Record) { r.Args[0] = "" }, 127, `exec "": executable file not found in $PATH`},
		"no interpreter":  {func(r *launch.Record) { r.Args[0] = dir + "/orphan" }, 127, `exec "` + dir + `/orphan": its interpreter is missing: no such file or directory`},
		"not executable":  {func(r *launch.Record) { r.Args[0] = dir + "/plain" }, 126, `exec "` + dir + `/plain": permission denied`},
		"a directory":     {func(r *launch.Record) { r.Args[0] = dir }, 126, `exec "` + dir + `": is a directory`},
		"no program":      {func(r *launch.Record) { r.Args[0] = dir + "/garbage" }, 126, `exec "` + dir + `/garbage": exec format error`},
		"not for others":  {func(r *launch.Record) { r.Args[0], r.UID = dir+"/private", 1234 }, 126, `exec "` + dir + `/private": permission denied`},
		"relative":        {func(r *launch.Record) { r.Args[0], r.Env, r.Cwd = "garbage", []string{"PATH="}, dir }, 127, `exec "garbage": executable file not found in $PATH`},
		"relative by dot": {func(r *launch.Record) { r.Args[0], r.Env, r.Cwd = "garbage", []string{"PATH=:/x"}, dir }, 126, `exec "garbage": cannot run executable found relative to current directory`},
		"no arguments":    {func(r *launch.Record) { r.Args = nil }, 126, `exec "": no program given`},
		"a bad variable":  {func(r *launch.Record) { r.Env = append(r.Env, "JUSTANAME") }, 126, `exec "sh": environment entry "JUSTANAME" has no name`},
		"a huge argument": {func(r *launch.Record) { r.Args[2] = strings.Repeat("x", 200<<10) }, 126, `exec "sh": argument list too long`},
		"a huge name":     {func(r *launch.Record) { r.Args[0] = strings.Repeat("x", 2<<20) }, 127, `exec "` + strings.Repeat("x", 256) + `": executable file not found in $PATH`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			r := sh("exit 0")
			test.change(&r)
			s.order(r)
			s.failed(test.code, test.reason)
		})
	}
}

func TestRefuse(t *testing.T) {
	s := serve(t)
	s.send(launch.Refuse{Reason: "the app has ended"})
	s.ended(0)
	if got := s.log.String(); got != "rich: the app has ended\n" {
		t.Errorf("stderr %q", got)
	}
}

func TestNoShim(t *testing.T) {
	cmd := exec.Command(launcher, "app")
	cmd.Dir = t.TempDir()
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitLauncher || string(out) != "rich: connect shim.sock: no such file or directory\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestShimGoneBeforeStart(t *testing.T) {
	s := serve(t)
	s.conn.Close()
	_ = s.launcher.Wait()
	if code := s.launcher.ProcessState.ExitCode(); code != exitLauncher {
		t.Errorf("exit code %d", code)
	}
}

func TestNoStdio(t *testing.T) {
	s := serve(t)
	s.send(launch.Start{Record: sh("exit 0")}, s.cmdStdio[:2]...)
	want := launch.Failed{Code: 126, Reason: `exec "sh": the shim sent no stdio`}
	if m := s.receive(); m != want {
		t.Errorf("got %+v", m)
	}
	s.ended(126)
}

// lines reads a helper's output line by line.
type lines struct {
	t testing.TB
	r *bufio.Scanner
}

func (l lines) want(text string) {
	l.t.Helper()
	if !l.r.Scan() {
		l.t.Fatalf("no line, want %q: %v", text, l.r.Err())
	}
	if got := l.r.Text(); got != text {
		l.t.Errorf("got %q, want %q", got, text)
	}
}

// catcher starts the helper that prints its signals.
func catcher(t *testing.T, s *shim, stop int) lines {
	t.Helper()
	s.start(launch.Record{
		Args: []string{filepath.Join(helpers, "catch")}, Cwd: "/", StopSignal: stop,
		Env: []string{"GODEBUG=asyncpreemptoff=1"}, // or it would get URGs of its own
	})
	l := lines{t, bufio.NewScanner(s.stdout)}
	l.want("ready")
	return l
}

// others are signals that an init has no meaning of its own for. The helper,
// like the launcher, is kept from PROF and 32 to 34 by its runtime.
var others = []syscall.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGUSR1,
	unix.SIGSEGV, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGSTKFLT, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
	unix.SIGURG, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR, unix.SIGSYS, 35, 37, 64,
}

func TestSignalsOfShim(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, int(unix.SIGUSR1))
	for _, signal := range append(slices.Clone(others), unix.SIGTERM) {
		s.send(launch.Signal{Number: int(signal)})
		l.want(strconv.Itoa(int(signal)))
	}
	s.send(launch.Signal{Number: int(unix.SIGKILL)})
	s.exited(137, false)
}

func TestSignalsOfInit(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, 0)
	for _, signal := range others {
		s.signal(signal)
		l.want(strconv.Itoa(int(signal)))
	}
	s.stdin.Close()
	s.exited(42, false)
}

// TestSignalsIgnored: what cannot be passed on must not end the launcher.
func TestSignalsIgnored(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, 0)
	for _, signal := range []syscall.Signal{32, 33, 34, unix.SIGCHLD} {
		s.signal(signal)
	}
	s.signal(unix.SIGUSR1)
	l.want(strconv.Itoa(int(unix.SIGUSR1)))
	s.stdin.Close()
	s.exited(42, false)
}

func TestStopOfInit(t *testing.T) {
	for name, test := range map[string]struct {
		stop int
		want syscall.Signal
	}{
		"TERM by default": {0, unix.SIGTERM},
		"the image's own": {int(unix.SIGQUIT), unix.SIGQUIT},
		"a real-time one": {37, 37},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			l := catcher(t, s, test.stop)
			s.signal(unix.SIGTERM)
			l.want(strconv.Itoa(int(test.want)))
			s.stdin.Close()
			s.exited(42, true)
		})
	}
}

// TestStopBeforeStart has the init ask for a stop while the launcher waits for
// its order. The command then ends by the signal that was kept for it.
func TestStopBeforeStart(t *testing.T) {
	s := serve(t)
	s.signal(unix.SIGHUP)
	s.signal(unix.SIGTERM)
	s.signal(unix.SIGTERM)
	r := cat()
	r.StopSignal = int(unix.SIGHUP)
	s.start(r)
	s.exited(129, true)
}

// TestStopWhileHeld has the init ask for a stop while a component holds the
// command back: nothing waits for an order that may come late.
func TestStopWhileHeld(t *testing.T) {
	s := serve(t)
	s.send(launch.Hold{})
	s.signal(unix.SIGTERM)
	if m, want := s.receive(), (launch.Exited{Status: 128 + uint32(unix.SIGTERM), Requested: true}); m != want {
		t.Errorf("got %+v, want %+v", m, want)
	}
	s.ended(0)
}

// TestSignalWhileHeld is one that the command gets once it runs.
func TestSignalWhileHeld(t *testing.T) {
	s := serve(t)
	s.send(launch.Hold{})
	s.signal(unix.SIGUSR1)
	s.start(cat())
	s.exited(128+uint32(unix.SIGUSR1), false)
}

// TestSignalBeforeStarted is an order that comes with the start.
func TestSignalBeforeStarted(t *testing.T) {
	s := serve(t)
	s.order(cat())
	s.send(launch.Signal{Number: int(unix.SIGUSR1)})
	if m, ok := s.receive().(launch.Started); !ok {
		t.Fatalf("got %+v", m)
	}
	s.exited(128+uint32(unix.SIGUSR1), false)
}

func TestShimGone(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, 0)
	s.conn.Close()
	s.signal(unix.SIGHUP)
	l.want("1")
	s.signal(unix.SIGTERM)
	l.want("15")
	s.stdin.Close()
	_ = s.launcher.Wait()
	if code := s.launcher.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d, it says %q", code, s.log.String())
	}
}

// TestUnknownMessage: a later shim may say more.
func TestUnknownMessage(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, 0)
	s.send(launch.Event{Name: "unexpected"})
	s.send(launch.Signal{Number: int(unix.SIGUSR1)})
	l.want(strconv.Itoa(int(unix.SIGUSR1)))
	s.stdin.Close()
	s.exited(42, false)
}

// console starts a command with a terminal and returns its master.
func console(t *testing.T, s *shim, r launch.Record) *os.File {
	t.Helper()
	r.Terminal = true
	s.send(launch.Start{Record: r})
	m, files, err := s.conn.Receive()
	if err != nil || m != (launch.Console{}) || len(files) != 1 {
		t.Fatalf("got %+v, %v, %v; the launcher says %q", m, files, err, s.log.String())
	}
	t.Cleanup(func() { files[0].Close() })
	return files[0]
}

// readTerminal reads until the last slave is closed, which a master reports
// with EIO.
func readTerminal(t *testing.T, master *os.File) string {
	t.Helper()
	b, err := io.ReadAll(master)
	if !errors.Is(err, unix.EIO) {
		t.Errorf("the terminal's end: %v, want EIO", err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func TestTerminal(t *testing.T) {
	s := serve(t)
	r := sh(`test -t 0 -a -t 1 -a -t 2 && stty size && stat -Lc %u /dev/fd/0 && read line </dev/tty && echo "got $line" && ls /proc/self/fd | wc -l`)
	r.UID, r.Rows, r.Cols = 1234, 33, 101
	master := console(t, s, r)
	if m, ok := s.receive().(launch.Started); !ok {
		t.Fatalf("got %+v", m)
	}
	if _, err := io.WriteString(master, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, want := readTerminal(t, master), "33 101\n1234\ngot hello\n4\n"; strings.Replace(got, "hello\n", "", 1) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.exited(0, false)
}

func TestTerminalInterrupt(t *testing.T) {
	s := serve(t)
	master := console(t, s, sh("echo ready; exec cat"))
	if m, ok := s.receive().(launch.Started); !ok {
		t.Fatalf("got %+v", m)
	}
	lines{t, bufio.NewScanner(master)}.want("ready")
	if _, err := master.WriteString("\x03"); err != nil { // ^C
		t.Fatal(err)
	}
	s.exited(130, false)
}

func TestTerminalCannotStart(t *testing.T) {
	s := serve(t)
	r := sh("")
	r.Args[0] = "foo"
	master := console(t, s, r)
	reason := `exec "foo": executable file not found in $PATH`
	if m := s.receive(); m != (launch.Failed{Code: 127, Reason: reason}) {
		t.Errorf("got %+v", m)
	}
	if got := readTerminal(t, master); got != "rich: "+reason+"\n" {
		t.Errorf("the terminal shows %q", got)
	}
	s.ended(127)
}

// TestWaitingMemory holds the launcher to its target, after it has passed on a
// signal and has then had nothing to do.
func TestWaitingMemory(t *testing.T) {
	s := serve(t)
	l := catcher(t, s, 0)
	s.signal(unix.SIGHUP)
	l.want("1")
	const target = 1536 // KiB
	row := regexp.MustCompile(`(?m)^Pss: +(\d+) kB`)
	for end := time.Now().Add(patience); ; time.Sleep(idleTimeout * time.Millisecond / 4) {
		m := row.FindStringSubmatch(proc(t, s.launcher.Process.Pid, "smaps_rollup"))
		if m == nil {
			t.Fatal("no Pss")
		}
		pss, _ := strconv.Atoi(m[1])
		if pss <= target {
			t.Logf("a waiting launcher takes %d KiB", pss)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a waiting launcher takes %d KiB, more than %d", pss, target)
		}
	}
	s.signal(unix.SIGUSR1)
	l.want(strconv.Itoa(int(unix.SIGUSR1)))
	s.stdin.Close()
	s.exited(42, false)
}

// BenchmarkStart measures from the order to the command's exec, and to its end.
func BenchmarkStart(b *testing.B) {
	var started time.Duration
	for range b.N {
		s := serve(b)
		begin := time.Now()
		s.start(launch.Record{Args: []string{"/bin/true"}, Cwd: "/"})
		started += time.Since(begin)
		s.exited(0, false)
	}
	b.ReportMetric(float64(started.Microseconds())/float64(b.N), "µs/started")
}

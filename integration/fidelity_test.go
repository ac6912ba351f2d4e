package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The field cases about the command itself: whatever runs as pid 1, it must get what runc would have given it.

var (
	everyInit = []variant{dumbInit, systemdBookworm, systemdSid}
	mostInits = []variant{dumbInit, systemdBookworm}
)

// setEnv sets the environment as it is, duplicates included.
func setEnv(env ...string) taskOption {
	return withProcess(func(p *specs.Process) { p.Env = env })
}

func expectEnv(values map[string]string) func(t *testing.T, r probeReport) {
	return func(t *testing.T, r probeReport) {
		t.Helper()
		for name, want := range values {
			if got, found := r.Env(name); !found || got != want {
				t.Errorf("%s is %.80q (set: %v), want %.80q", name, got, found, want)
			}
		}
	}
}

func TestB1Env(t *testing.T) {
	t.Parallel()
	t.Run("values", func(t *testing.T) {
		t.Parallel()
		values := map[string]string{
			"A": "hello world", "B": `it's "quoted" \ back\nslash`, "C": "line1\nline2\n", "D": "  lead and trail  ",
			"E": "", "F": "a=b=c", "G": "#notcomment", "H": `ends with backslash\`, "I": "$HOME ${X} %h %n %%",
			// In the bundle's JSON no byte can be that is not UTF-8: encoding/json, of containerd, replaces it.
			"J": "\ttab", "K": "ü漢\uFFFD", "L": strings.Repeat("x", 100<<10), "DUP": "2",
		}
		env := []string{"PATH=/usr/bin:/bin", "DUP=1"}
		for name, value := range values {
			env = append(env, name+"="+value)
		}
		slices.Sort(env)
		likeRunc(t, everyInit, expectEnv(values), withProbe("x"), setEnv(env...))
	})
	t.Run("names", func(t *testing.T) {
		t.Parallel()
		values := map[string]string{
			"lower.case-dots": "1", "1NUM": "2", "A B": "3", "BASH_FUNC_x%%": "() { :; }", "ü": "4", "-": "5", "$X": "6", "#c": "7", "\n": "8",
		}
		var env []string
		for name, value := range values {
			env = append(env, name+"="+value)
		}
		slices.Sort(env)
		likeRunc(t, mostInits, expectEnv(values), withProbe("x"), setEnv(env...))
	})
	// What systemd itself listens to must neither change it nor be taken away.
	t.Run("of the init", func(t *testing.T) {
		t.Parallel()
		values := map[string]string{
			"SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_UNIT_PATH": "/nowhere", "container": "mine", "container_uuid": "none", "TERM": "xterm-256color",
			"NOTIFY_SOCKET": "/nowhere", "LISTEN_FDS": "3", "LISTEN_PID": "1", "LD_LIBRARY_PATH": "/nowhere", "LANG": "xx_YY",
			"HOME": "/not/there", "INVOCATION_ID": "0", "JOURNAL_STREAM": "1:2", "SHELL": "/no/shell", "USER": "nobody", "LOGNAME": "x",
		}
		env := []string{"PATH=/usr/bin:/bin"}
		for name, value := range values {
			env = append(env, name+"="+value)
		}
		slices.Sort(env)
		likeRunc(t, mostInits, expectEnv(values), withProbe("x"), setEnv(env...))
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, expectEnv(map[string]string{"HOME": "/root"}), withProbe("x"), setEnv())
	})
	// Near what one exec can carry in all: 2 MiB.
	t.Run("large", func(t *testing.T) {
		t.Parallel()
		values := map[string]string{}
		env := []string{"PATH=/usr/bin:/bin"}
		for i := range 15 {
			name := fmt.Sprintf("LARGE%02d", i)
			values[name] = strings.Repeat(fmt.Sprint(i%10), 120<<10)
			env = append(env, name+"="+values[name])
		}
		likeRunc(t, mostInits, expectEnv(values), withProbe("x"), setEnv(env...))
	})
}

func expectArgs(args ...string) func(t *testing.T, r probeReport) {
	return func(t *testing.T, r probeReport) {
		t.Helper()
		if !slices.Equal(r.Args(), args) {
			t.Errorf("argv is %q, want %q", r.Args(), args)
		}
	}
}

func TestB2Argv(t *testing.T) {
	t.Parallel()
	t.Run("special words", func(t *testing.T) {
		t.Parallel()
		args := []string{
			probePath, "", "a b", "  ", "'", "\"", "\\", "\\x41", "$HOME", "${HOME}", "$(id)", "`id`", "%n", "%%", "100%", ";", "&&", "-", "--",
			"*", "~", "#c", "a\nb", "\tt", "$$", "$FOO", "%x", `{"json": ["a", 'b']}`, "@x", "\r\n", "trailing\\", "ü漢",
		}
		likeRunc(t, everyInit, expectArgs(args...), withProbe(args[1:]...))
	})
	t.Run("many words", func(t *testing.T) {
		t.Parallel()
		args := []string{probePath, strings.Repeat("y", 100<<10)}
		for i := range 5000 {
			args = append(args, fmt.Sprintf("word %d", i))
		}
		likeRunc(t, mostInits, expectArgs(args...), withProbe(args[1:]...))
	})
	for _, script := range []struct {
		name string
		args []string
		want result
	}{
		{"rkt321", []string{"/bin/bash", "-c", "ls -la /usr/bin/env | wc -l; mount | grep -c ' on / '; ls -d /dev"}, result{Stdout: "1\n1\n/dev\n"}},
		{"rkt1680", []string{"/bin/sh", "-c", "\\\n echo foo \\\n && echo bar\n"}, result{Stdout: "foo\nbar\n"}},
		{"script", []string{"sh", "-c", "set -e\nfor i in 1 2; do\n\techo \"$i;$#\" '%n' >&2\ndone\nexit $3\n", "a;", "b", "c d", "7"}, result{Stderr: "1;3 %n\n2;3 %n\n", Code: 7}},
	} {
		t.Run(script.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, append([]variant{plain}, everyInit...), func(t *testing.T, v variant) {
				if got := runTask(t, v.image, runLimit, v.with(withArgs(script.args...))...); got != script.want {
					t.Errorf("got %+v, want %+v", got, script.want)
				}
			})
		})
	}
	t.Run("podman9176", func(t *testing.T) {
		t.Parallel()
		args := []string{"sh", "-c", "kill -0 $$ && sleep infinity"}
		forEach(t, everyInit, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(withArgs(args...))...)
			run.waitCommandLine(args...)
			run.waitCommandLine("sleep", "infinity")
			run.stop()
		})
	})
	// The name is looked up with the container's PATH in the container's root.
	t.Run("name", func(t *testing.T) {
		t.Parallel()
		for i, name := range []string{"-bash", "@x", "-x", ":x", "+x", "!x", "!!x", "|x", "%n", "$HOME", "a b", `\x41`} {
			variants := []variant{systemdBookworm}
			if name == "-bash" {
				variants = everyInit
			}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				forEach(t, variants, func(t *testing.T, v variant) {
					got := runTask(t, v.image, runLimit, v.with(withArgs(name, "arg"), setEnv("PATH=/opt/none:/opt/only"), withProbeAt("/opt/only/"+name))...)
					r := parseReport(t, got.Stdout)
					expectArgs(name, "arg")(t, r)
					if string(r.Exe) != "/opt/only/"+name {
						t.Errorf("%s was run", r.Exe)
					}
				})
			})
		}
	})
	t.Run("relative path", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, expectArgs("./only/here", "arg"),
			withArgs("./only/here", "arg"), withProbeAt("/opt/only/here"), withProcess(func(p *specs.Process) { p.Cwd = "/opt" }))
	})
	t.Run("injection", func(t *testing.T) {
		t.Parallel()
		const evil = "\n[Service]\nExecStartPre=/bin/touch /pwned\n"
		const script = `test ! -e /pwned && echo clean && printf %s "$1$EVIL"`
		forEach(t, everyInit, func(t *testing.T, v variant) {
			got := runTask(t, v.image, runLimit, v.with(
				withArgs("sh", "-c", script, "sh", evil), withEnv("EVIL="+evil, "X"+evil+"=1"),
				withProcess(func(p *specs.Process) { p.Cwd = "/tmp/" + strings.ReplaceAll(evil, "/", "_") }),
				withAnnotation("org.systemd.property.ExecStartPre", "'/bin/touch /pwned'"),
				withAnnotation("x", evil), withAnnotation("x"+evil, "x"))...)
			if want := (result{Stdout: "clean\n" + evil + evil}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	})
}

// withProbeAt copies the probe into the root file system.
func withProbeAt(name string) taskOption {
	return func(s *taskSettings) {
		program, err := os.ReadFile(buildPath("bin/probe"))
		if err != nil {
			panic(err)
		}
		withFile(name, string(program), 0o755)(s)
	}
}

func TestB5Env(t *testing.T) {
	t.Parallel()
	values := map[string]string{"JAVA_HOME": "/opt/jdk", "MSG": `it's $5 "x" ` + "`y`", "PATH": "/opt/jdk/bin:/usr/bin:/bin"}
	var env []string
	for name, value := range values {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	t.Run("a", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, expectEnv(values), withProbe("x"), setEnv(env...))
	})
	t.Run("d", func(t *testing.T) {
		t.Parallel()
		exec := func(t *testing.T, v variant) probeReport {
			run := startTask(t, v.image, v.with(withProbe("sleep"), setEnv(env...))...)
			got := run.Exec(probePath, "x")
			if got.Code != 0 {
				t.Fatalf("exec: %+v", got)
			}
			run.Kill(syscall.SIGKILL)
			run.Wait(runLimit)
			run.Delete()
			return parseReport(t, got.Stdout)
		}
		want := exec(t, plain)
		expectEnv(values)(t, want)
		forEach(t, everyInit, func(t *testing.T, v variant) { sameProcess(t, exec(t, v), want) })
	})
	// An image's unit can take variables of the container from pid 1.
	t.Run("PassEnvironment", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(withProbe("sleep"), setEnv(env...), withUnit("pass.service",
				"[Service]\nPassEnvironment=MSG\nType=oneshot\nRemainAfterExit=yes\nExecStart=/probe report /run/passed\n"))...)
			var report string
			eventually(t, runLimit, "the unit's report", func() error {
				got := run.Exec("cat", "/run/passed")
				if report = got.Stdout; !strings.HasSuffix(report, "}\n") {
					return fmt.Errorf("%+v", got)
				}
				return nil
			})
			expectEnv(map[string]string{"MSG": values["MSG"]})(t, parseReport(t, report))
			run.stop()
		})
	})
}

func TestB6User(t *testing.T) {
	t.Parallel()
	umask := uint32(63)
	for _, c := range []struct {
		name  string
		check func(r probeReport) bool
		opts  []taskOption
	}{
		{
			"unknown uid",
			func(r probeReport) bool {
				return r.UID == 1000660000 && r.GID == 0 && slices.Equal(r.Groups, []uint32{2000, 3000}) && r.Umask == 63 && string(r.Cwd) == "/tmp"
			},
			[]taskOption{withUser(1000660000, 0, 2000, 3000), withProcess(func(p *specs.Process) { p.User.Umask, p.Cwd = &umask, "/tmp" })},
		},
		{"unknown uid and gid", func(r probeReport) bool { return r.UID == 1234 && r.GID == 5678 && len(r.Groups) == 0 }, []taskOption{withUser(1234, 5678)}},
		{
			"known uid",
			func(r probeReport) bool { home, _ := r.Env("HOME"); return r.UID == 33 && home == "/var/www" },
			[]taskOption{withUser(33, 33, 4), setEnv("PATH=/bin")},
		},
		{
			"ambient and noNewPrivileges",
			func(r probeReport) bool {
				return r.CapAmbient == "0000000000000400" && r.CapEffective == r.CapAmbient && r.NoNewPrivs == "1"
			},
			[]taskOption{withUser(1234, 5678), withProcess(func(p *specs.Process) {
				bind := []string{"CAP_NET_BIND_SERVICE"}
				p.NoNewPrivileges = true
				p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable, p.Capabilities.Ambient = bind, bind, bind, bind
			})},
		},
		{
			"capabilities of root",
			func(r probeReport) bool {
				return r.NoNewPrivs == "0" && r.CapInheritable == "0000000000000021" && r.CapBounding == "00000000a80425fb"
			},
			[]taskOption{withProcess(func(p *specs.Process) {
				few := []string{"CAP_CHOWN", "CAP_KILL"}
				p.NoNewPrivileges = false
				p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable = few, few, few
			})},
		},
		{
			"more groups of root",
			func(r probeReport) bool { return r.UID == 0 && r.GID == 7 && slices.Equal(r.Groups, []uint32{1, 4, 9}) },
			[]taskOption{withUser(0, 7, 1, 4, 9)},
		},
		{
			"missing cwd",
			func(r probeReport) bool { return string(r.Cwd) == "/srv/new/folder" },
			[]taskOption{withUser(1234, 5678), withProcess(func(p *specs.Process) { p.Cwd = "/srv/new/folder" })},
		},
		{
			"seccomp",
			func(r probeReport) bool { return r.Seccomp == "2" },
			[]taskOption{withUser(1234, 5678), withSpec(seccomp.WithDefaultProfile())},
		},
		{
			"seccomp without noNewPrivileges",
			func(r probeReport) bool { return r.Seccomp == "2" && r.NoNewPrivs == "0" },
			[]taskOption{withSpec(seccomp.WithDefaultProfile()), withProcess(func(p *specs.Process) { p.NoNewPrivileges = false })},
		},
		{
			"priorities",
			func(r probeReport) bool { return r.Nice == 7 && r.IOPrio == 2<<13|6 },
			[]taskOption{withProcess(func(p *specs.Process) {
				p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 7}
				p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			})},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			likeRunc(t, mostInits, func(t *testing.T, r probeReport) {
				if !c.check(r) {
					t.Errorf("without init: %+v", unplaced(r))
				}
			}, append([]taskOption{withProbe("x")}, c.opts...)...)
		})
	}
	t.Run("id", func(t *testing.T) {
		t.Parallel()
		forEach(t, append([]variant{plain}, everyInit...), func(t *testing.T, v variant) {
			got := runTask(t, v.image, runLimit, v.with(withArgs("sh", "-c", "id; umask; pwd"), withUser(1000660000, 0, 2000, 3000),
				withProcess(func(p *specs.Process) { p.User.Umask, p.Cwd = &umask, "/tmp" }))...)
			if want := (result{Stdout: "uid=1000660000 gid=0(root) groups=0(root),2000,3000\n0077\n/tmp\n"}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	})
	// A container that may not change its user, as of a pod that drops all capabilities: an init that is root can do nothing
	// for it. It works, or create says so.
	t.Run("few capabilities", func(t *testing.T) {
		t.Parallel()
		few := withProcess(func(p *specs.Process) {
			bind := []string{"CAP_NET_BIND_SERVICE"}
			p.User, p.NoNewPrivileges = specs.User{UID: 1234, GID: 5678}, true
			p.Capabilities = &specs.LinuxCapabilities{Bounding: bind, Effective: bind, Permitted: bind, Inheritable: bind, Ambient: bind}
		})
		likeRunc(t, []variant{dumbInit}, func(t *testing.T, r probeReport) {
			if r.CapAmbient != "0000000000000400" || r.CapBounding != r.CapAmbient {
				t.Errorf("without init: %+v", unplaced(r))
			}
		}, withProbe("x"), few)
		run, err := tryTask(t, imageBookworm, systemdBookworm.with(withProbe("x"), few)...)
		if err != nil {
			for _, word := range []string{"process.capabilities", "CAP_SETUID", "dumb-init"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			return
		}
		run.Start()
		code := run.Wait(runLimit)
		run.Delete()
		if code != 0 {
			t.Fatalf("status %d: %s", code, run.Stderr)
		}
		if r := parseReport(t, run.Stdout.String()); r.UID != 1234 || r.CapAmbient != "0000000000000400" {
			t.Errorf("got %+v", unplaced(r))
		}
	})
	// Other than the command the init is root, and it runs.
	t.Run("init", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, withInit("systemd"), withProbe("sleep"), withUser(1234, 5678))
		if state := run.booted(); state != "running" {
			t.Errorf("systemd is %s", state)
		}
		if got := run.ExecAs(byOperator, "stat", "-c", "%u", "/proc/1"); got.Stdout != "0\n" {
			t.Errorf("pid 1 is owned by %+v", got)
		}
		run.stop()
	})
	// Under auto nobody gets a root process that did not ask for one.
	t.Run("auto", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, withInit("auto"), withProbe("sleep"), withUser(1234, 5678))
		// Start returns when libcontainer's init goes on, which then becomes it.
		eventually(t, runLimit, "dumb-init as pid 1", func() error {
			if got := run.Exec("cat", "/proc/1/comm"); got.Stdout != "dumb-init\n" {
				return fmt.Errorf("it is %+v", got)
			}
			return nil
		})
		if got := run.Exec("stat", "-c", "%u", "/proc/1"); got.Stdout != "1234\n" {
			t.Errorf("pid 1 is owned by %+v", got)
		}
		run.stop()
	})
}

func TestB7Limits(t *testing.T) {
	t.Parallel()
	// Without CAP_SYS_RESOURCE not even runc can raise a hard limit.
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	files := min(1048576, own.Max)
	score := 985
	limits := withProcess(func(p *specs.Process) {
		p.OOMScoreAdj = &score
		p.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: files, Hard: files},
			{Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
			{Type: "RLIMIT_MEMLOCK", Soft: 65536, Hard: 65536},
		}
	})
	t.Run("case", func(t *testing.T) {
		t.Parallel()
		forEach(t, append([]variant{plain}, everyInit...), func(t *testing.T, v variant) {
			got := runTask(t, v.image, runLimit, v.with(limits, withArgs("sh", "-c", "ulimit -n; ulimit -c; cat /proc/self/oom_score_adj"))...)
			if want := (result{Stdout: fmt.Sprintf("%d\n0\n985\n", files)}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	})
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, func(t *testing.T, r probeReport) {
			if r.Rlimits["RLIMIT_NOFILE"].Soft != files || r.Rlimits["RLIMIT_MEMLOCK"].Hard != 65536 || r.OOMScoreAdj != score {
				t.Errorf("limits %v, score %d", r.Rlimits, r.OOMScoreAdj)
			}
		}, withProbe("x"), limits)
	})
	t.Run("low", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, func(t *testing.T, r probeReport) {
			if r.Rlimits["RLIMIT_FSIZE"].Soft != 4096 || r.Rlimits["RLIMIT_NPROC"].Hard != 64 {
				t.Errorf("limits %v", r.Rlimits)
			}
		}, withProbe("x"), withUser(1234, 5678), withProcess(func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 100},
				{Type: "RLIMIT_NPROC", Soft: 32, Hard: 64},
				{Type: "RLIMIT_FSIZE", Soft: 4096, Hard: 8192},
				{Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 1 << 20},
				{Type: "RLIMIT_CPU", Soft: 2, Hard: 3},
				{Type: "RLIMIT_SIGPENDING", Soft: 10, Hard: 10},
				{Type: "RLIMIT_MSGQUEUE", Soft: 0, Hard: 0},
			}
		}))
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		// With 64 MiB it is libcontainer's own init that now and then cannot go on, also without any init.
		const data = 256 << 20
		likeRunc(t, mostInits, func(t *testing.T, r probeReport) {
			if r.Rlimits["RLIMIT_DATA"].Hard != data {
				t.Errorf("limits %v", r.Rlimits)
			}
		}, withProbe("x"), withProcess(func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_DATA", Soft: data, Hard: data}}
		}))
	})
	// Less address space than a Go program needs to start, which libcontainer's init is as well: it can be had, but
	// not with certainty, where the limit is pid 1's.
	t.Run("address space", func(t *testing.T) {
		t.Parallel()
		got := runTask(t, systemdBookworm.image, runLimit, systemdBookworm.with(withProbe("x"), withProcess(func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 64 << 20, Hard: 64 << 20}}
		}))...)
		if got.Code != 0 || got.Stderr != "" {
			t.Fatalf("got %+v", got)
		}
		if r := parseReport(t, got.Stdout); r.Rlimits["RLIMIT_AS"].Soft != 64<<20 || r.Rlimits["RLIMIT_AS"].Hard != 64<<20 {
			t.Errorf("limits %v", r.Rlimits)
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		likeRunc(t, mostInits, func(t *testing.T, r probeReport) {
			if len(r.Rlimits) != 16 {
				t.Errorf("limits %v", r.Rlimits)
			}
		}, withProbe("x"), withProcess(func(p *specs.Process) { p.Rlimits = nil }))
	})
	// The services of the image start all the same.
	t.Run("services", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(limits, withProbe("sleep"))...)
			if state := run.booted(); state != "running" {
				t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
			}
			if got := run.Exec("systemctl", "is-active", "cron", "dbus"); got.Stdout != "active\nactive\n" {
				t.Errorf("cron and dbus are %+v", got)
			}
			run.stop()
		})
	})
}

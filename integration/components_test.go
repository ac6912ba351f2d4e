package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// bootLimit bounds what a container does that boots and halts like a machine, on a host that does the same many times.
const bootLimit = 8 * time.Minute

// Each init does the same with components, whatever their service is like.
func TestComponentsOfEveryInit(t *testing.T) {
	o := newOperator(t)
	// The command and the later component can tell whether they came too early, and all whether the command went first.
	const wait = "trap 'test -e /dev/shm/command.down && echo stopped after the command; exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done"
	const path = "PATH=$RICH_COMPONENT_DIR:$PATH; "
	o.script("early", path+"busybox sleep 2; echo >/dev/shm/early.up; "+strings.ReplaceAll(wait, "test -e", "busybox test -e"),
		"start = \"before\"\nrequired = true\nready = [\"busybox\", \"test\", \"-e\", \"/dev/shm/early.up\"]\nready-timeout = \"2m\"")
	o.script("late", path+"busybox test -e /dev/shm/early.up && echo after early; echo up; "+strings.ReplaceAll(wait, "test -e", "busybox test -e"), "")
	o.script("crash", "echo last words >&2; exit 3", "restart-delay = \"100ms\"\nrestart-max-delay = \"1s\"")

	command := "test -e /dev/shm/early.up && echo after early; trap 'echo >/dev/shm/command.down; exit 5' TERM; " + ready + idle
	t.Run("init", func(t *testing.T) {
		for _, v := range matrixInits {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				t.Run("beside the command", func(t *testing.T) {
					run, log := watch(t, v.image, withInit(v.init), o.with("early,late,crash"), withRich("halt-timeout", "10m"), withArgs("sh", "-c", command))
					run.WaitOutput("ready", bootLimit)
					o.waitLog(run, "late", "after early")
					run.waitShimLog("component crashed", "service=rich-component-crash", "code=3", `stderr="last words"`, "restart-in=100ms")
					run.waitShimLog("component crashed", "component=crash", "restart-in=1s")
					log.WaitCrash("rich-component-crash", 3, runLimit)
					if v.program == "systemd" {
						run.booted()
					}
					run.Kill(syscall.SIGTERM)
					if code := run.Wait(bootLimit); code != 5 {
						run.fatal("exit status %d, want 5", code)
					}
					for _, name := range []string{"early", "late"} {
						o.waitLog(run, name, "stopped after the command")
					}
					run.endTask()
					// dumb-init's signals reach the shell's children, and it tells.
					err := strings.TrimSuffix(run.Stderr.String(), "Terminated\n")
					if out := run.Stdout.String(); out != "after early\nready\n" || err != "" {
						t.Errorf("stdout %q, stderr %q", out, err)
					}
					if left := ours(run.written()); len(left) > 0 {
						t.Errorf("left in the rootfs: %q", left)
					}
				})
				if v.poweroff == nil || v.program == "systemd" && v.image != imageBookworm {
					return // the units are those of the older systemd
				}
				t.Run("the command is the init", func(t *testing.T) {
					run := startTask(t, v.image, withBoot(), o.with("early,late"), withRich("halt-timeout", "10m"), withArgs("/sbin/init"))
					v.isPid1(run)
					if v.program == "systemd" {
						run.booted()
					}
					o.waitLog(run, "late", "up")
					run.waitShimLog("component started", "component=early")
					run.Kill(syscall.SIGTERM)
					if code := run.Wait(bootLimit); code != 0 {
						run.fatal("exit status %d", code)
					}
				})
			})
		}
	})
}

// besideInits are where a component's limits and outputs take different ways.
var besideInits = []variant{dumbInit, systemdBookworm}

func forBeside(t *testing.T, check func(t *testing.T, v variant)) {
	t.Run("init", func(t *testing.T) {
		for _, v := range besideInits {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				check(t, v)
			})
		}
	})
}

// Whatever a component does, the command goes on.
func TestComponentsAreIsolated(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.script("flood", "busybox=$RICH_COMPONENT_DIR/busybox; $busybox yes to stdout & exec $busybox yes to stderr >&2", `log-size = "256k"`)
	o.script("hog", "exec $RICH_COMPONENT_DIR/busybox dd if=/dev/zero of=/dev/null bs=64M count=1", "memory = \"16m\"\ncpus = 0.5\nrestart-delay = \"1s\"")
	o.script("spin", "while :; do :; done", "cpus = 0.05")
	o.script("said", "echo to stdout; echo to stderr >&2; exec $RICH_COMPONENT_DIR/busybox sleep 1000", `log = "container"`)
	forBeside(t, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(o.with("flood, hog ,spin,said"), withSpec(oci.WithMemoryLimit(512<<20)), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
		run.WaitOutput("ready", runLimit)
		o.waitLog(run, "flood", "lines are lost]")
		run.waitShimLog("component crashed", "component=hog", "signal=SIGKILL", "code=137")
		eventually(t, runLimit, "the container's log", func() error {
			// Whoever of the two is first.
			out, err := slices.Sorted(strings.Lines(run.Stdout.String())), run.Stderr.String()
			if !slices.Equal(out, []string{"ready\n", "said: to stdout\n"}) || err != "said: to stderr\n" {
				return fmt.Errorf("stdout %q, stderr %q", out, err)
			}
			return nil
		})
		// The processor is limited as the kernel tells it.
		spin := filepath.Join("/sys/fs/cgroup/cpu", private.Cgroup(), run.ID, "rich-spin")
		eventually(t, runLimit, "a limited processor", func() error {
			stat, err := os.ReadFile(filepath.Join(spin, "cpu.stat"))
			if err == nil && !regexp.MustCompile(`nr_throttled [1-9]`).Match(stat) {
				err = fmt.Errorf("it is not: %s", stat)
			}
			return err
		})
		if quota := readLines(t, filepath.Join(spin, "cpu.cfs_quota_us"))[0]; quota != "5000" {
			t.Errorf("quota %s", quota)
		}
		if code := run.ExecAs(asRoot, "true").Code; code != 0 {
			t.Errorf("exec: %d", code)
		}
		for _, name := range []string{"flood.log", "flood.log.1"} {
			// There is none for a moment each time that it is rotated.
			eventually(t, runLimit, name, func() error {
				info, err := os.Stat(o.logs(testNamespace, run.ID, name))
				if err == nil && info.Size() > 256<<10 {
					t.Errorf("%s has %d bytes", name, info.Size())
				}
				return err
			})
		}
		run.Kill(syscall.SIGTERM)
		if code := run.Wait(runLimit); code != 5 {
			run.fatal("exit status %d", code)
		}
		run.Delete()
		if _, err := os.Stat(o.logs(testNamespace, run.ID)); err == nil {
			t.Error("the logs are left")
		}
	})
}

// A component is started as its definition says, and gets nothing of the command's.
func TestComponentProcess(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.makeAgent("probe", map[string]string{"probe": buildPath("bin/probe"), "busybox": buildPath("bin/busybox")})
	odd := "a b\"c'd$e\\f\tg%h\x01ü"
	for name, keys := range map[string]string{
		"user": `user = "1234:5678"`,
		"root": "",
		"own":  `user = "command"`,
	} {
		o.define(name, fmt.Sprintf("directory = %q\nexec = [\"probe\", \"report\", \"/dev/shm/%s\"]\nenv = { ODD = %q, PATH = \"/x\" }\nrestart = \"never\"\n%s\n", o.agent("probe"), name, "ODDVALUE", keys))
		content, err := os.ReadFile(o.definition(name))
		if err != nil {
			t.Fatal(err)
		}
		// In TOML's own form.
		o.define(name, strings.ReplaceAll(string(content), `"ODDVALUE"`, `"a b\"c'd$e\\f\tg%h\u0001ü"`))
	}
	forBeside(t, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(o.with("user,root,own"), withEnv("SECRET=1"), withUser(1000, 1001, 1002), withArgs("sh", "-c", "umask 0; "+ready+idle))...)
		run.WaitOutput("ready", runLimit)
		for name, ids := range map[string]string{"user": "1234 5678 []", "root": "0 0 []", "own": "1000 1001 [1002]"} {
			var report probeReport
			eventually(t, runLimit, "report of "+name, func() error {
				got := run.ExecAs(asRoot, "cat", "/dev/shm/"+name)
				if got.Code != 0 || !strings.HasSuffix(got.Stdout, "}\n") {
					return fmt.Errorf("%+v", got)
				}
				report = parseReport(t, got.Stdout)
				return nil
			})
			var env []string
			for _, entry := range report.Environ {
				env = append(env, string(entry))
			}
			dir := "/run/rich/components/" + name
			want := []string{"HOME=/", "ODD=" + odd, "PATH=/x", "RICH_COMPONENT_DIR=" + dir, "RICH_CONTAINER_ID=" + run.ID, "RICH_NAMESPACE=" + testNamespace}
			if name == "root" {
				want[0] = "HOME=/root"
			}
			slices.Sort(env)
			if !slices.Equal(env, want) {
				t.Errorf("%s: environment %q, want %q", name, env, want)
			}
			if got := report.Args(); !slices.Equal(got, []string{dir + "/probe", "report", "/dev/shm/" + name}) || string(report.Cwd) != dir {
				t.Errorf("%s: argv %q in %s", name, got, report.Cwd)
			}
			if got := fmt.Sprint(report.UID, report.GID, report.Groups); got != ids {
				t.Errorf("%s: ids %s, want %s", name, got, ids)
			}
			if report.NoNewPrivs != "1" || report.Umask != 0o022 || report.OOMScoreAdj != 1000 {
				t.Errorf("%s: no_new_privs %s, umask %#o, OOM score %d", name, report.NoNewPrivs, report.Umask, report.OOMScoreAdj)
			}
			// Root has what the container may have.
			if want := map[bool]string{true: report.CapBounding, false: "0000000000000000"}[name == "root"]; report.CapEffective != want || report.CapPermitted != want {
				t.Errorf("%s: capabilities %s, want %s", name, report.CapEffective, want)
			}
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
	})
}

// In a user namespace, root of the container runs the components, and no other.
func TestComponentsInUserNamespace(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.script("agent", "echo up; exec $RICH_COMPONENT_DIR/busybox sleep 1000", "start = \"before\"\nrequired = true\nuser = \"1234\"\nmemory = \"64m\"")
	forBeside(t, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withUserNamespace(), withUser(1000, 1000), o.with("agent"), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
		run.WaitOutput("ready", runLimit)
		o.waitLog(run, "agent", "up")
		procs := readLines(t, filepath.Join("/sys/fs/cgroup/memory", private.Cgroup(), run.ID, "rich-agent/cgroup.procs"))
		status, err := os.ReadFile(filepath.Join("/proc", procs[0], "status"))
		if want := fmt.Sprintf("\nUid:\t%d\t", usernsRoot+1234); err != nil || !strings.Contains(string(status), want) {
			t.Errorf("%v, %s", err, status)
		}
		run.Kill(syscall.SIGTERM)
		if code := run.Wait(runLimit); code != 5 {
			run.fatal("exit status %d", code)
		}
	})
}

// Below dumb-init a command can tell no difference but in the tree of processes.
func TestComponentsCommandIsAsWithout(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.script("agent", "exec $RICH_COMPONENT_DIR/busybox sleep 1000", "")
	o.script("own", "exec $RICH_COMPONENT_DIR/busybox sleep 1000", `user = "command"`)
	o.script("early", "exec $RICH_COMPONENT_DIR/busybox sleep 1000", `start = "before"`)
	with := []taskOption{withInit("dumb-init"), o.with("agent,early")}
	without := []taskOption{withInit("dumb-init")}
	nonroot := []taskOption{withUser(1234, 5678, 1, 2), withProcess(func(p *specs.Process) { p.NoNewPrivileges = true })}
	t.Run("process", func(t *testing.T) {
		for name, opts := range map[string][]taskOption{
			"root":     {},
			"user":     nonroot,
			"terminal": {withTerminal()},
			"limits": {withProcess(func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_AS", Soft: 1 << 32, Hard: 1 << 33}}
			})},
		} {
			for kind, with := range map[string][]taskOption{
				"root": with,
				"own":  {withInit("dumb-init"), o.with("own"), withRich("root-init", "never")},
			} {
				t.Run(name+" beside "+kind, func(t *testing.T) {
					t.Parallel()
					opts := append(slices.Clone(opts), withProbe("odd\xffarg", ""), withEnv("ODD=\xff\n'\""))
					want := runTask(t, imageBookworm, runLimit, append(slices.Clone(without), opts...)...)
					got := runTask(t, imageBookworm, runLimit, append(slices.Clone(with), opts...)...)
					if want.Code != 0 || got.Code != 0 {
						t.Fatalf("got %+v, without components %+v", got, want)
					}
					sameProcess(t, parseReport(t, got.Stdout), parseReport(t, want.Stdout))
				})
			}
		}
	})
	t.Run("status", func(t *testing.T) {
		for _, c := range []struct {
			name string
			want int
			args []string
		}{
			{"code", 42, []string{"sh", "-c", "cat; exit 42"}},
			{"signal", 128 + 11, []string{"sh", "-c", "cat; kill -SEGV $$"}},
			{"not found", 127, []string{"no-such-program"}},
			{"not executable", 126, []string{"/etc"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				var results []result
				for _, opts := range [][]taskOption{without, with} {
					run := startTask(t, imageBookworm, append(slices.Clone(opts), withStdin(), withArgs(c.args...))...)
					_, _ = run.Stdin.Write([]byte("in"))
					run.CloseStdin()
					code := run.Wait(runLimit)
					run.Delete()
					results = append(results, result{run.Stdout.String(), run.Stderr.String(), code})
				}
				if results[0] != results[1] || results[1].Code != c.want {
					t.Errorf("with components %+v, without %+v, want %d", results[1], results[0], c.want)
				}
			})
		}
	})
	t.Run("signals", func(t *testing.T) {
		dir := t.TempDir()
		run := startTask(t, imageBookworm, append(slices.Clone(with), withProbe("trap", "/data/signals", "0", "5"), withBind(dir, "/data", "rbind", "rw"))...)
		run.WaitOutput("ready", runLimit)
		var want []string
		for _, s := range []struct {
			number syscall.Signal
			name   string
		}{{unix.SIGHUP, "HUP"}, {unix.SIGINT, "INT"}, {unix.SIGUSR1, "USR1"}, {unix.SIGUSR2, "USR2"}, {unix.SIGWINCH, "WINCH"}, {37, "RTMIN+3"}, {unix.SIGTERM, "TERM"}} {
			run.Kill(s.number)
			want = append(want, s.name)
			eventually(t, runLimit, "signal "+s.name, func() error {
				content, err := os.ReadFile(filepath.Join(dir, "signals"))
				if got := strings.Fields(string(content)); err == nil && !slices.Equal(got, want) {
					err = fmt.Errorf("got %v, want %v", got, want)
				}
				return err
			})
		}
		if code := run.Wait(runLimit); code != 5 {
			run.fatal("exit status %d", code)
		}
	})
	t.Run("a signal before the command", func(t *testing.T) {
		o.define("never", fmt.Sprintf("directory = %q\nexec = [\"busybox\", \"sleep\", \"1000\"]\nstart = \"before\"\nready = \"tcp:1\"\nready-timeout = \"10m\"\n", o.agent("agent")))
		run := startTask(t, imageBookworm, withInit("dumb-init"), o.with("never"), withArgs("echo", "started"))
		run.waitShimLog("component started")
		run.Kill(syscall.SIGTERM)
		if code := run.Wait(runLimit); code != 143 || run.Stdout.String() != "" {
			run.fatal("exit status %d", code)
		}
	})
}

// A component that is not ready in time is one that cannot be started.
func TestComponentsReady(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.makeAgent("busybox", map[string]string{"busybox": buildPath("bin/busybox")})
	define := func(name, exec, keys string) {
		o.define(name, fmt.Sprintf("directory = %q\nexec = [\"busybox\", %s]\nstart = \"before\"\n%s\n", o.agent("busybox"), exec, keys))
	}
	define("listens", `"sh", "-c", "./busybox sleep 1; exec ./busybox httpd -f -p 127.0.0.1:4444"`, `ready = "tcp:4444"`+"\nrequired = true")
	define("deaf", `"sleep", "1000"`, "ready = \"tcp:4445\"\nready-timeout = \"2s\"\nrequired = true")
	define("optional", `"sleep", "1000"`, "ready = \"tcp:4445\"\nready-timeout = \"2s\"")
	define("over", `"false"`, "ready = \"tcp:4445\"\nrestart = \"never\"\nrequired = true")
	for _, c := range []struct {
		name string
		want result
	}{
		{"listens", result{"started\n", "", 0}},
		{"optional", result{"started\n", "", 0}},
		{"deaf", result{"", "rich: component deaf, which is required: not ready within 2s\n", 125}},
		{"over", result{"", "rich: component over, which is required: it ended with code 1 before it was ready\n", 125}},
	} {
		if got := runTask(t, imageBusybox, runLimit, o.with(c.name), withArgs("echo", "started")); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// It is reported as a failed prestart hook is.
func TestComponentsRequired(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.define("missing", "exec = [\"/no/such/program\"]\nstart = \"before\"\nrequired = true\n")
	forEach(t, []variant{dumbInit, systemdBookworm, {"busybox", imageInitBusybox, "sbin-init"}}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(o.with("missing"), withArgs("echo", "started"))...)
		code := run.Wait(bootLimit)
		run.Delete()
		want := "rich: component missing, which is required: exec \"/no/such/program\": no such file or directory\n"
		if code != 125 || run.Stdout.String() != "" || run.Stderr.String() != want {
			t.Errorf("exit status %d, stdout %q, stderr %q, want 125 and %q", code, run.Stdout, run.Stderr, want)
		}
		run.waitShimLog("the command crashed", "code=125", "reason=component-failed")
	})
}

// An init that is the command cannot be held back: it is halted, and the task
// ends as with any other.
func TestComponentsRequiredByInit(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.define("missing", "exec = [\"/no/such/program\"]\nstart = \"before\"\nrequired = true\n")
	forEach(t, []variant{{"systemd", imageBookworm, "auto"}, {"busybox", imageInitBusybox, "auto"}}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, o.with("missing"), withBoot(), withArgs("/sbin/init"))
		if code := run.Wait(bootLimit); code != 125 {
			run.fatal("exit status %d, want 125", code)
		}
		run.waitShimLog("the command crashed", "code=125", "reason=component-failed")
		run.Delete()
	})
}

// What cannot work is refused at create.
func TestComponentsBadInput(t *testing.T) {
	o := newOperator(t)
	o.makeAgent("agent", map[string]string{"busybox": buildPath("bin/busybox")})
	good := fmt.Sprintf("directory = %q\nexec = [\"busybox\"]\n", o.agent("agent"))
	o.define("good", good)
	o.define("typo", good+"memroy = \"64m\"\n")
	o.define("value", good+"memory = \"64 MB\"\n")
	o.define("large", good+"# "+strings.Repeat("x", 64<<10)+"\n")
	o.define("away", "directory = \"/no/such/folder\"\nexec = [\"busybox\"]\n")
	o.define("syslog", good+"log = \"syslog\"\n")
	o.define("writable", good)
	if err := os.Chmod(o.definition("writable"), 0o664); err != nil {
		t.Fatal(err)
	}
	o.define("foreign", good)
	if err := os.Chown(o.definition("foreign"), 1234, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(o.definition("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 17 {
		name := fmt.Sprintf("many%d", i)
		o.define(name, good)
		many = append(many, name)
	}
	for _, c := range []struct {
		name  string
		words []string
		opts  []taskOption
	}{
		{"unknown", []string{"rich.containerd.io/components", `"agent"`, "not offered", "good", "many0"}, []taskOption{o.with("agent")}},
		{"a path", []string{"rich.containerd.io/components", `"../../x"`, "letters"}, []taskOption{o.with("../../x")}},
		{"unknown key", []string{"components.d/typo.toml", `"memroy"`, `"memory"`}, []taskOption{o.with("typo")}},
		{"bad value", []string{"components.d/value.toml", "memory", `"64 MB"`, "64m"}, []taskOption{o.with("value")}},
		{"too large", []string{"components.d/large.toml", "65536"}, []taskOption{o.with("large")}},
		{"others may write it", []string{"components.d/writable.toml", "0664", "chmod"}, []taskOption{o.with("writable")}},
		{"another owner", []string{"components.d/foreign.toml", "1234", "root"}, []taskOption{o.with("foreign")}},
		{"a fifo", []string{"components.d/fifo.toml", "regular file"}, []taskOption{o.with("fifo")}},
		{"no directory", []string{"components.d/away.toml", "directory", "/no/such/folder"}, []taskOption{o.with("away")}},
		{"no syslog", []string{"components.d/syslog.toml", "log", "syslog", "dumb-init"}, []taskOption{o.with("syslog")}},
		{"too many", []string{"components", "17", "16"}, []taskOption{o.with(strings.Join(many, ","))}},
		{"no init", []string{"rich.containerd.io/components", `"good"`, "none", "dumb-init"}, []taskOption{o.with("good"), withInit("none")}},
		{"an init that the user cannot run", []string{"rich.containerd.io/components", "good", "user", "1234", "root-init"}, []taskOption{o.with("good"), withUser(1234, 1234)}},
		{"as an annotation", []string{"always-components", "handler, host file"}, []taskOption{withHost(o.files), withRich("always-components", "good")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare := snapshotHost(t)
			run, err := tryTask(t, imageBusybox, append(c.opts, withArgs("true"))...)
			if err == nil {
				t.Fatal("created")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			run.cleanup()
			compare()
		})
	}
	t.Run("always", func(t *testing.T) {
		o.script("audit", "echo up; exec $RICH_COMPONENT_DIR/busybox sleep 1000", `start = "before"`)
		o.write("always-components = \"audit\"\ncomponents = \"typo\"\n")
		run := startTask(t, imageBusybox, o.with(""), withArgs("sh", "-c", ready+idle))
		run.WaitOutput("ready", runLimit)
		o.waitLog(run, "audit", "up")
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		if _, err := tryTask(t, imageBusybox, o.with(""), withInit("none"), withArgs("true")); err == nil || !strings.Contains(err.Error(), "always-components") {
			t.Errorf("init none got away: %v", err)
		}
	})
}

// Agents as Debian has them run in images that know nothing of them.
func TestComponentsRealAgents(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	built := buildPath("components")
	o.define("node-exporter", fmt.Sprintf(`
directory = %q
exec = ["lib/ld-linux-x86-64.so.2", "--library-path", "lib", "bin/prometheus-node-exporter", "--web.listen-address=127.0.0.1:9100"]
user = "65534:65534"
start = "before"
ready = "tcp:9100"
required = true
memory = "128m"
cpus = 0.5
`, filepath.Join(built, "node-exporter")))
	rsyslog := o.agent("rsyslog")
	if err := os.CopyFS(rsyslog, os.DirFS(filepath.Join(built, "rsyslog"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rsyslog, "ship.conf"), []byte(`
module(load="imfile" mode="inotify")
input(type="imfile" File="/dev/shm/app.log" Tag="app:" reopenOnTruncate="on")
template(name="line" type="string" string="shipped %msg%\n")
action(type="omfile" File="/dev/shm/shipped.log" template="line")
`), 0o644); err != nil {
		t.Fatal(err)
	}
	o.define("rsyslog", fmt.Sprintf(`
directory = %q
exec = ["lib/ld-linux-x86-64.so.2", "--library-path", "lib", "bin/rsyslogd", "-n", "-M", "modules", "-f", "ship.conf", "-i", "NONE"]
stop-timeout = "10s"
`, rsyslog))
	// What is written in the very moment before its SIGTERM, rsyslogd does not read any more. So the command gives it the
	// time to: it must not get that signal before the command has ended, however long this takes.
	const last = `echo last line >>/dev/shm/app.log; i=0; until grep -q "last line" /dev/shm/shipped.log || [ $i = 100 ]; do sleep 0.1; i=$((i+1)); done; exit 5`
	const command = "trap '" + last + "' TERM; echo first line >/dev/shm/app.log; " + ready + "while :; do sleep 1 & wait $!; done"
	for _, v := range []variant{{"dumb-init in busybox", imageBusybox, "dumb-init"}, systemdBookworm} {
		t.Run(v.name, func(t *testing.T) {
			data := t.TempDir()
			run := startTask(t, v.image, v.with(o.with("node-exporter,rsyslog"), withArgs("sh", "-c", command),
				withBind(data, "/dev/shm", "rbind", "rw"))...)
			run.WaitOutput("ready", runLimit)
			// It was ready before the command.
			metrics, err := scrape(run.Task.Pid(), "127.0.0.1:9100")
			if err != nil || !strings.Contains(metrics, "node_memory_MemTotal_bytes") {
				run.fatal("scrape: %v\n%s", err, tail(metrics))
			}
			shipped := func() string {
				content, err := os.ReadFile(filepath.Join(data, "shipped.log"))
				if err != nil {
					return err.Error()
				}
				return string(content)
			}
			ships := func(want string) {
				t.Helper()
				if err := poll(runLimit, func() error {
					// Some versions keep the blank before the message.
					if got := strings.ReplaceAll(shipped(), "shipped  ", "shipped "); got != want {
						return fmt.Errorf("shipped %q", got)
					}
					return nil
				}); err != nil {
					run.fatal("%v\n%s", err, o.componentLog(run, "rsyslog"))
				}
			}
			ships("shipped first line\n")
			// rsyslogd calls abort when SIGTERM comes while it still starts its threads: the first line is shipped by one of
			// them before the main thread is done with that.
			app, err := os.OpenFile(filepath.Join(data, "app.log"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintln(app, "second line"); err != nil {
				t.Fatal(err)
			}
			app.Close()
			ships("shipped first line\nshipped second line\n")
			run.waitAsleep("rsyslogd")
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(runLimit); code != 5 {
				run.fatal("exit status %d", code)
			}
			// The agent stops after the command, in order.
			if got := shipped(); !strings.HasSuffix(got, "last line\n") {
				t.Errorf("shipped %q", got)
			}
		})
	}
}

// waitAsleep waits until the main thread of a program of the container has nothing to do for a while.
func (r *task) waitAsleep(program string) {
	r.t.Helper()
	const still = 200 * time.Millisecond
	eventually(r.t, runLimit, program+" asleep", func() error {
		ctx, cancel := r.daemon.within(callLimit)
		defer cancel()
		pids, err := r.Task.Pids(ctx)
		if err != nil {
			return err
		}
		for _, p := range pids {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
			if !strings.Contains(string(line), "/"+program+"\x00") {
				continue
			}
			look := func() string {
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", p.Pid, p.Pid))
				return strings.Join(regexp.MustCompile(`(?m)^(State|\w+_ctxt_switches):.*$`).FindAllString(string(status), -1), ", ")
			}
			before := look()
			time.Sleep(still)
			if after := look(); after != before || !strings.HasPrefix(after, "State:\tS") {
				return fmt.Errorf("process %d has %s, and %v before %s", p.Pid, after, still, before)
			}
			return nil
		}
		return errors.New("it is not there")
	})
}

// scrape gets an exporter's metrics from the network namespace of a process.
func scrape(pid uint32, address string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		// The thread stays in the namespace, and ends with the goroutine.
		runtime.LockOSThread()
		var a answer
		defer func() { done <- a }()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			a.err = err
			return
		}
		defer ns.Close()
		if a.err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); a.err != nil {
			return
		}
		conn, err := net.DialTimeout("tcp", address, callLimit)
		if err != nil {
			a.err = err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(callLimit))
		if _, a.err = io.WriteString(conn, "GET /metrics HTTP/1.0\r\nHost: "+address+"\r\n\r\n"); a.err != nil {
			return
		}
		content, err := io.ReadAll(conn)
		a = answer{string(content), err}
	}()
	a := <-done
	return a.text, a.err
}

// Root of a container may say anything in a component's name.
func TestComponentsHostileLauncher(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	o.script("agent", "exec $RICH_COMPONENT_DIR/busybox sleep 1000", "")
	run := startTask(t, imageBusybox, o.with("agent"), withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	run.waitShimLog("component started")
	dial := func() *launch.Conn {
		raw, err := run.dialShim()
		if err != nil {
			t.Fatal(err)
		}
		conn := launch.NewConn(raw, launch.MaxFromShim)
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	hello := func(role, name string) launch.Message {
		conn := dial()
		if err := conn.Send(launch.Hello{Version: launch.Version, Role: role}); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := conn.Send(launch.Component{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		m, _, err := answered(conn)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for what, got := range map[string]launch.Message{
		"it runs":       hello(launch.RoleComponent, "agent"),
		"there is none": hello(launch.RoleComponent, "../agent"),
		"no service":    hello(launch.RoleService, ""),
	} {
		if _, ok := got.(launch.Refuse); !ok {
			t.Errorf("%s: got %T %+v", what, got, got)
		}
	}
	// Without its launcher the name is free: nothing is gained but what the container has anyway, and its log.
	if got := run.Exec("sh", "-c", `for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <$p/cmdline) in "/run/rich/launch component agent "*) kill -9 ${p#/proc/} && exit 0;; esac
	done; exit 1`); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	var conn *launch.Conn
	eventually(t, runLimit, "the order for the component", func() error {
		conn = dial()
		_ = conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleComponent})
		_ = conn.Send(launch.Component{Name: "agent"})
		m, files, err := answered(conn)
		for _, f := range files {
			f.Close()
		}
		if _, ok := m.(launch.Run); !ok {
			return fmt.Errorf("got %T: %w", m, err)
		}
		return nil
	})
	before := len(private.LogTail(run.ID, 100000))
	for range 10000 {
		if err := conn.Send(launch.ComponentExited{Code: 1, Again: 1}); err != nil {
			break
		}
	}
	run.Exec("true")
	if more := len(private.LogTail(run.ID, 100000)) - before; more > 100<<10 {
		t.Errorf("%d bytes of log", more)
	}
	run.Kill(syscall.SIGTERM)
	run.Wait(runLimit)
}

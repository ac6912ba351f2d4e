package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// initLimit bounds the life of one container whose image boots like a machine, on a busy host.
var initLimit = patience(120 * time.Second)

// matrixInit is one column of the matrix.
type matrixInit struct {
	name, image string
	init        string // option
	program     string // of pid 1
	// poweroff and reboot are what an operator types inside; nil if there is no such thing.
	poweroff, reboot []string
	// halt37 says that SIGRTMIN+3 is this init's own request to halt.
	halt37 bool
}

// matrixInits are in the order of the table.
var matrixInits = []matrixInit{
	{"systemd 252", imageBookworm, "sbin-init", "systemd", []string{"systemctl", "poweroff"}, []string{"systemctl", "reboot"}, true},
	{"systemd 257", imageTrixie, "sbin-init", "systemd", []string{"systemctl", "poweroff"}, []string{"systemctl", "reboot"}, true},
	{"systemd sid", imageSid, "sbin-init", "systemd", []string{"systemctl", "poweroff"}, []string{"systemctl", "reboot"}, true},
	{"sysvinit", imageSysvinit, "sbin-init", "init", []string{"poweroff"}, []string{"reboot"}, false},
	{"busybox", imageInitBusybox, "sbin-init", "busybox", []string{"poweroff"}, []string{"reboot"}, false},
	{"busybox with OpenRC", imageInitAlpine, "sbin-init", "busybox", []string{"poweroff"}, []string{"reboot"}, false},
	{"openrc-init", imageInitOpenRC, "sbin-init", "openrc-init", []string{"openrc-shutdown", "-p", "now"}, []string{"openrc-shutdown", "-r", "now"}, false},
	{"runit", imageRunit, "sbin-init", "runit", []string{"poweroff"}, []string{"reboot"}, false},
	{"dumb-init", imageBookworm, "dumb-init", "dumb-init", nil, nil, false},
}

// noPower is why dumb-init has no cell where a machine is switched off.
const noPower = "—: it starts no services and has no such command"

// The rows of the matrix.
const (
	cellExit0     = "command exits 0"
	cellExit42    = "command exits 42"
	cellSignal    = "command dies of SEGV"
	cellStreams   = "stdout and stderr apart, stdin with its end"
	cellTerminal  = "terminal"
	cellUser      = "command not root"
	cellUserns    = "command not root in a user namespace"
	cellReadOnly  = "read-only rootfs"
	cellSignals   = "HUP, INT, USR1, USR2, WINCH reach the command"
	cell37        = "37 (SIGRTMIN+3)"
	cellTerm      = "stop by TERM, without CAP_SYS_BOOT"
	cellTermBoot  = "stop by TERM, with CAP_SYS_BOOT"
	cellPower     = "poweroff inside, without CAP_SYS_BOOT"
	cellPowerBoot = "poweroff inside, with CAP_SYS_BOOT"
	cellReboot    = "reboot inside, without CAP_SYS_BOOT"
	cellRebBoot   = "reboot inside, with CAP_SYS_BOOT"
	cellAgain     = "second start on the same rootfs"
	cellTraces    = "nothing of ours left in the rootfs"
	cellGetty     = "no getty"
	cellIdle      = "CPU time of pid 1 in 3 s idle"
	cellCMD       = "command is the init itself (auto), TERM, with CAP_SYS_BOOT"
	cellCMDPower  = "command is the init itself (auto), poweroff inside, without CAP_SYS_BOOT"
	cellCMDReboot = "command is the init itself (auto), reboot inside, without CAP_SYS_BOOT"
)

var matrixRows = []string{
	cellExit0, cellExit42, cellSignal, cellStreams, cellTerminal, cellUser, cellUserns, cellReadOnly, cellSignals, cell37,
	cellTerm, cellTermBoot, cellPower, cellPowerBoot, cellReboot, cellRebBoot, cellAgain, cellTraces, cellGetty, cellIdle, cellCMD,
	cellCMDPower, cellCMDReboot,
}

// matrix collects the cells while the inits are tested side by side.
type matrix struct {
	lock  sync.Mutex
	cells map[string]map[string]string // by init, row
}

func (m *matrix) set(init, row, format string, args ...any) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.cells[init] == nil {
		m.cells[init] = map[string]string{}
	}
	m.cells[init][row] = fmt.Sprintf(format, args...)
}

// The text of a cell whose test did not come to its end, or was not run.
const (
	cellFailed = "FAILED"
	cellNotRun = "not run"
)

// begin notes that the test of some cells of an init begins.
func (m *matrix) begin(init string, rows []string) {
	for _, row := range rows {
		m.set(init, row, cellFailed)
	}
}

// complete tells whether every cell has a result, and fills in those that were not run.
func (m *matrix) complete() bool {
	all := true
	for _, v := range matrixInits {
		for _, row := range matrixRows {
			switch m.cells[v.name][row] {
			case "":
				m.set(v.name, row, cellNotRun)
				all = false
			case cellFailed:
				all = false
			}
		}
	}
	return all
}

// table is the matrix in Markdown.
func (m *matrix) table() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, v := range matrixInits {
		fmt.Fprintf(&b, " %s |", v.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(matrixInits)) + "\n")
	for _, row := range matrixRows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, v := range matrixInits {
			fmt.Fprintf(&b, " %s |", m.cells[v.name][row])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// withBoot adds the capability for reboot(2).
func withBoot() taskOption { return withSpec(oci.WithAddedCapabilities([]string{"CAP_SYS_BOOT"})) }

// withReadOnly makes the root file system read-only.
func withReadOnly() taskOption { return withSpec(oci.WithRootFSReadonly()) }

// The same list for every init. What one of them cannot do has its reason in the table.
func TestInitMatrix(t *testing.T) {
	m := &matrix{cells: map[string]map[string]string{}}
	t.Run("init", func(t *testing.T) {
		for _, v := range matrixInits {
			t.Run(v.name, func(t *testing.T) {
				t.Parallel()
				v.test(t, m)
			})
		}
	})
	complete := m.complete()
	t.Logf("the matrix:\n%s", m.table())
	if !complete {
		return // also if only some of the inits or cells were run
	}
	if err := os.WriteFile(buildPath("init-matrix.md"), []byte(m.table()), 0o644); err != nil {
		t.Error(err)
	}
	const doc, begin, end = "../docs/inits.md", "<!-- matrix -->\n", "<!-- end of matrix -->\n"
	data, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), begin)
	if have, _, _ := strings.Cut(rest, end); have != m.table() {
		t.Errorf("%s is out of date: put build/init-matrix.md between %q and %q", doc, begin, end)
	}
}

// slowStop is a command that needs longer for its end than busybox init (1 s) and sysvinit (3 s) give by themselves.
const slowStop = "trap 'sleep 4; echo bye; exit 5' TERM; " + ready + idle

func (v matrixInit) test(t *testing.T, m *matrix) {
	with := func(opts ...taskOption) []taskOption { return append([]taskOption{withInit(v.init)}, opts...) }
	cell := func(name string, rows []string, check func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			m.begin(v.name, rows)
			check(t)
		})
	}

	cell("exit 0", []string{cellExit0, cellStreams}, func(t *testing.T) {
		run := startTask(t, v.image, with(withStdin(), withArgs("sh", "-c", "cat; echo err >&2"))...)
		if _, err := run.Stdin.Write([]byte("in\n")); err != nil {
			t.Fatal(err)
		}
		run.WaitOutput("in\n", initLimit)
		run.CloseStdin()
		v.ends(run, 0)
		m.set(v.name, cellExit0, "0")
		if out, err := run.Stdout.String(), run.Stderr.String(); out != "in\n" || err != "err\n" {
			t.Fatalf("stdout %q, stderr %q", out, err)
		}
		m.set(v.name, cellStreams, "yes")
	})
	cell("exit 42", []string{cellExit42, cellUser, cellReadOnly}, func(t *testing.T) {
		run := startTask(t, v.image, with(withUser(1234, 5678), withReadOnly(), withArgs("sh", "-c", "id -u; id -g; grep -q ' / overlay ro' /proc/mounts && exit 42"))...)
		v.ends(run, 42)
		if out := run.Stdout.String(); out != "1234\n5678\n" {
			t.Fatalf("stdout %q", out)
		}
		m.set(v.name, cellExit42, "42")
		m.set(v.name, cellUser, "yes")
		m.set(v.name, cellReadOnly, "yes")
	})
	cell("SEGV", []string{cellSignal, cellTerminal}, func(t *testing.T) {
		run := startTask(t, v.image, with(withTerminal(), withArgs("sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && kill -SEGV $$"))...)
		v.ends(run, 139)
		m.set(v.name, cellSignal, "139")
		if out := run.Stdout.String(); !strings.HasPrefix(out, "/dev/") {
			t.Fatalf("stdout %q", out)
		}
		m.set(v.name, cellTerminal, "yes")
	})
	cell("user namespace", []string{cellUserns}, func(t *testing.T) { v.testUserNamespace(t, m) })
	cell("signals", []string{cellSignals, cellIdle, cellGetty, cell37, cellTerm, cellTraces}, func(t *testing.T) { v.testSignals(t, m, with) })
	cell("TERM with CAP_SYS_BOOT", []string{cellTermBoot}, func(t *testing.T) {
		run := startTask(t, v.image, with(withBoot(), withArgs("sh", "-c", slowStop))...)
		run.WaitOutput("ready", initLimit)
		run.Kill(syscall.SIGTERM)
		v.ends(run, 5)
		m.set(v.name, cellTermBoot, "5")
	})
	for _, c := range []struct {
		name    string
		row     string
		command []string
		want    int
		opts    []taskOption
	}{
		{"poweroff", cellPower, v.poweroff, 5, nil},
		{"poweroff with CAP_SYS_BOOT", cellPowerBoot, v.poweroff, 5, []taskOption{withBoot()}},
		{"reboot", cellReboot, v.reboot, 133, nil},
		{"reboot with CAP_SYS_BOOT", cellRebBoot, v.reboot, 133, []taskOption{withBoot()}},
	} {
		if c.command == nil {
			m.set(v.name, c.row, noPower)
			continue
		}
		rows := []string{c.row}
		if c.row == cellReboot {
			rows = append(rows, cellAgain)
		}
		cell(c.name, rows, func(t *testing.T) {
			// Without naming an init: auto finds it.
			run := startTask(t, v.image, append(c.opts, withArgs("sh", "-c", slowStop))...)
			run.WaitOutput("ready", initLimit)
			if v.program == "systemd" {
				run.booted()
			}
			// The end of the container may be the end of the command.
			if _, err := run.TryExec(asRoot, c.command...); err != nil {
				t.Logf("%q: %v", c.command, err)
			}
			code := run.Wait(initLimit)
			drained(run.Task.IO())
			if out := run.Stdout.String(); code != c.want || out != "ready\nbye\n" {
				run.fatal("exit status %d, want %d; the command was not stopped in order", code, c.want)
			}
			m.set(v.name, c.row, "%d", code)
			if c.row == cellReboot {
				run.endTask()
				run.again(asRoot)
				run.WaitOutput("ready", initLimit)
				run.Kill(syscall.SIGTERM)
				v.ends(run, 5)
				m.set(v.name, cellAgain, "yes")
				return
			}
			run.Delete()
		})
	}
	if v.poweroff == nil {
		cell("again", []string{cellAgain}, func(t *testing.T) {
			run := startTask(t, v.image, with(withArgs("sh", "-c", slowStop))...)
			for n := range 2 {
				run.WaitOutput("ready", initLimit)
				run.Kill(syscall.SIGTERM)
				if code := run.Wait(initLimit); code != 5 {
					run.fatal("exit status %d", code)
				}
				if n == 0 {
					run.endTask()
					run.again(asRoot)
				}
			}
			m.set(v.name, cellAgain, "yes")
		})
	}
	v.testCMD(t, m, cell)
}

// ends waits for the end of a task and deletes it.
func (v matrixInit) ends(run *task, want int) {
	run.t.Helper()
	if code := run.Wait(initLimit); code != want {
		run.fatal("exit status %d, want %d", code, want)
	}
	run.Delete()
}

// isPid1 waits until the runtime has made way for the init.
func (v matrixInit) isPid1(run *task) {
	run.t.Helper()
	eventually(run.t, initLimit, "pid 1", func() error {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", run.Task.Pid()))
		if err == nil && filepath.Base(program) != v.program {
			err = fmt.Errorf("it is %s, want %s", program, v.program)
		}
		return err
	})
}

// testSignals uses one container for all that can be seen while it runs.
func (v matrixInit) testSignals(t *testing.T, m *matrix, with func(...taskOption) []taskOption) {
	dir := t.TempDir()
	run := startTask(t, v.image, with(withProbe("trap", "/data/signals", "2000", "5"), withBind(dir, "/data", "rbind", "rw"))...)
	run.WaitOutput("ready", initLimit)
	v.isPid1(run)
	if v.program == "systemd" {
		run.booted()
	}
	got := func() []string {
		content, err := os.ReadFile(filepath.Join(dir, "signals"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(content))
	}
	var want []string
	send := func(signal syscall.Signal, name string) {
		t.Helper()
		run.Kill(signal)
		want = append(want, name)
		eventually(t, initLimit, "signal "+name, func() error {
			if got := got(); !slices.Equal(got, want) {
				return fmt.Errorf("got %v, want %v", got, want)
			}
			return nil
		})
	}
	for signal, name := range map[syscall.Signal]string{
		syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2", syscall.SIGWINCH: "WINCH",
	} {
		send(signal, name)
	}
	m.set(v.name, cellSignals, "yes")

	// The boot may still be busy; an init that spins is busy for ever.
	const mostTicks = 3
	eventually(t, initLimit, "an idle pid 1", func() error {
		before, err := cpuTicks(run.Task.Pid())
		if err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
		after, err := cpuTicks(run.Task.Pid())
		if ticks := after - before; err == nil && ticks > mostTicks {
			return fmt.Errorf("%d ticks", ticks)
		}
		return err
	})
	m.set(v.name, cellIdle, "at most %d ms", mostTicks*10) // USER_HZ is 100

	comms := run.ExecAs(asRoot, "sh", "-c", "cat /proc/[0-9]*/comm").Stdout
	for name := range strings.Lines(comms) {
		if strings.Contains(name, "getty") || strings.Contains(name, "login\n") {
			t.Errorf("a getty runs: %q", comms)
		}
	}
	m.set(v.name, cellGetty, "yes")

	if v.halt37 {
		run.Kill(37)
		m.set(v.name, cell37, "asks to stop")
	} else {
		send(37, "RTMIN+3")
		m.set(v.name, cell37, "reaches the command")
		run.Kill(syscall.SIGTERM)
	}
	if code := run.Wait(initLimit); code != 5 {
		run.fatal("exit status %d, want 5", code)
	}
	if got, want := got(), append(want, "TERM"); !slices.Equal(got, want) {
		t.Errorf("the command got %v, want %v", got, want)
	}
	if !v.halt37 {
		m.set(v.name, cellTerm, "5")
	}
	if v.halt37 {
		t.Run("TERM", func(t *testing.T) {
			run := startTask(t, v.image, with(withArgs("sh", "-c", slowStop))...)
			run.WaitOutput("ready", initLimit)
			run.Kill(syscall.SIGTERM)
			v.ends(run, 5)
			m.set(v.name, cellTerm, "5")
		})
	}
	run.endTask()
	if left := ours(run.written()); len(left) > 0 {
		t.Errorf("left in the rootfs: %q", left)
	} else {
		m.set(v.name, cellTraces, "yes")
	}
}

func (v matrixInit) testCMD(t *testing.T, m *matrix, cell func(string, []string, func(*testing.T))) {
	if v.poweroff == nil {
		for _, row := range []string{cellCMD, cellCMDPower, cellCMDReboot} {
			m.set(v.name, row, "the command stays pid 1: nothing to add")
		}
		return
	}
	cell("is command", []string{cellCMD}, func(t *testing.T) {
		// The halt may be asked for at any moment of the boot.
		run := startTask(t, v.image, withBoot(), withRich("halt-timeout", "2m"), withArgs("/sbin/init"))
		v.isPid1(run)
		if v.program == "systemd" {
			run.booted()
		}
		run.Kill(syscall.SIGTERM)
		v.ends(run, 0)
		m.set(v.name, cellCMD, "0")
	})
	for _, c := range []struct {
		name, row string
		command   []string
		want      int
	}{
		{"is command and off", cellCMDPower, v.poweroff, 0},
		{"is command and again", cellCMDReboot, v.reboot, 133},
	} {
		shown := strconv.Itoa(c.want)
		if v.program == "busybox" && c.row == cellCMDReboot {
			c.want, shown = 0, "0: it tells of a reboot on its console only, which is the container's log here"
		}
		cell(c.name, []string{c.row}, func(t *testing.T) {
			run := startTask(t, v.image, withRich("halt-timeout", "2m"), withArgs("/sbin/init"))
			v.isPid1(run)
			if v.program == "systemd" {
				run.booted()
			}
			run.insist(c.command...)
			v.ends(run, c.want)
			m.set(v.name, c.row, "%s", shown)
		})
	}
}

// insist has the init end the container. Before it listens the command does nothing.
func (r *task) insist(command ...string) {
	r.t.Helper()
	eventually(r.t, initLimit, fmt.Sprintf("the end by %q", command), func() error {
		_, err := r.TryExec(asRoot, command...)
		return poll(5*time.Second, func() error {
			ctx, cancel := private.within(callLimit)
			defer cancel()
			status, statusErr := r.Task.Status(ctx)
			if statusErr == nil && status.Status == containerd.Stopped {
				return nil
			}
			return fmt.Errorf("it is %q (%w)", status.Status, errors.Join(err, statusErr))
		})
	})
}

// cpuTicks is the CPU time a process has used, in clock ticks.
func cpuTicks(pid uint32) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Behind the name, which may hold anything: utime and stime are fields 14 and 15 of the whole line.
	var user, system int
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return user + system, err
}

// asRoot is for what an operator does inside.
func asRoot(p *specs.Process) { p.User = specs.User{} }

// ours filters what was written to a root file system for traces of the runtime: files named after us, and empty ones
// where something was mounted.
func ours(written []string) []string {
	return slices.DeleteFunc(written, func(line string) bool {
		name, _, _ := strings.Cut(line, " ")
		return !strings.Contains(name, "rich") && !slices.Contains([]string{"/etc/inittab", "/etc/machine-id", "/etc/runit/3"}, name)
	})
}

// A cell says whether its test failed or was not run, and then nothing is compared.
func TestMatrixCells(t *testing.T) {
	m := &matrix{cells: map[string]map[string]string{}}
	m.begin("dumb-init", []string{cellExit0, cellExit42})
	m.set("dumb-init", cellExit0, "0")
	if m.complete() {
		t.Error("it counts as complete")
	}
	for row, want := range map[string]string{cellExit0: "0", cellExit42: cellFailed, cellSignal: cellNotRun} {
		if got := m.cells["dumb-init"][row]; got != want {
			t.Errorf("%s: %s, want %s", row, got, want)
		}
	}
	for _, v := range matrixInits {
		for _, row := range matrixRows {
			m.set(v.name, row, "0")
		}
	}
	if !m.complete() {
		t.Error("it is not complete")
	}
}

package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// A hostile container: every attack of integration/hostile, on every init, by every user. Whatever it does, its task can be
// killed and deleted, and neither the host nor another container of the pod is the worse for it.

// attackInit is what is attacked.
type attackInit struct {
	name, image string
	opts        []taskOption
	// manages says that the init runs the command as a service, and so has a launcher that is root's.
	manages bool
	// launcher says that there is one that is the command's own user.
	launcher bool
}

var attackInits = []attackInit{
	{"systemd", imageBookworm, []taskOption{withInit("systemd")}, true, false},
	{"sysvinit", imageSysvinit, []taskOption{withInit("sbin-init")}, true, false},
	{"busybox", imageInitBusybox, []taskOption{withInit("sbin-init")}, true, false},
	{"openrc", imageInitOpenRC, []taskOption{withInit("sbin-init")}, true, false},
	{"runit", imageRunit, []taskOption{withInit("sbin-init")}, true, false},
	{"dumb-init", imageBookworm, []taskOption{withInit("dumb-init")}, false, false},
	{"dumb-init keep", imageBookworm, []taskOption{withInit("dumb-init"), withRich("on-exit", "keep")}, false, true},
	{"none", imageBookworm, []taskOption{withInit("none")}, false, false},
}

// attackUser is who attacks.
type attackUser struct {
	name  string
	root  bool
	admin bool // has CAP_SYS_ADMIN
	opts  []taskOption
}

var attackUsers = []attackUser{
	{"root", true, false, nil},
	{"SYS_ADMIN", true, true, []taskOption{withSpec(oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})), withFuse()}},
	{"uid 1000", false, false, []taskOption{withUser(1000, 1000), withProcess(func(p *specs.Process) {
		// The bounding set is for the init.
		p.Capabilities = &specs.LinuxCapabilities{Bounding: p.Capabilities.Bounding}
	})}},
}

// withFuse gives the device of FUSE to a container, if the host has it.
func withFuse() taskOption {
	if !hostHasFuse() {
		return func(*taskSettings) {}
	}
	return withSpec(oci.WithLinuxDevice("/dev/fuse", "rwm"))
}

func hostHasFuse() bool {
	_, err := os.Stat("/dev/fuse")
	return err == nil
}

// chance is whether an attack can be made. What the program finds has to agree: else the prerequisite of the attack is
// missing, or somebody can do what he should not.
type chance string

const (
	can    chance = "yes"
	cannot chance = "no"
	either chance = "either" // depends on the kernel, or the shim may well forbid it
	absent chance = "absent" // what is attacked is not there without a terminal, with which the program is asked
)

func canIf(condition bool) chance {
	if condition {
		return can
	}
	return cannot
}

func anyone(attackInit, attackUser) chance { return can }

// socket is for those who may connect to the shim.
func socket(i attackInit, u attackUser) chance { return canIf(i.launcher || i.manages && u.root) }

func notifySocket(i attackInit, u attackUser) chance { return canIf(i.name == "systemd" && u.root) }

func fuse(i attackInit, u attackUser) chance {
	return canIf(socket(i, u) == can && u.admin && hostHasFuse())
}

// writableCgroup is for those who get a cgroup of their own, or can make one writable.
func writableCgroup(i attackInit, u attackUser) chance {
	switch {
	case u.admin:
		return can
	case u.root && i.name == "systemd":
		return can
	case u.root && i.manages:
		return either
	}
	return cannot
}

// fillable is for those who can make the shim's folder writable.
func fillable(i attackInit, u attackUser) chance {
	switch {
	case i.name == "dumb-init" && u.root:
		return can // the folder is on the container's own tmpfs
	case u.admin && i.name != "none":
		return either
	}
	return cannot
}

func mounter(i attackInit, u attackUser) chance { return canIf(u.admin && i.name != "none") }

func lessor(attackInit, attackUser) chance { return either }

// master is for those who may send a signal to the launcher.
func master(i attackInit, u attackUser) chance { return canIf(i.launcher || i.manages && u.root) }

func console(i attackInit, u attackUser) chance {
	switch {
	case i.manages && u.root:
		return can
	case !i.manages && !i.launcher:
		return absent
	}
	return either
}

// usurper is for those who can take the place of the launcher: dumb-init ends with its own.
func usurper(i attackInit, u attackUser) chance {
	if i.launcher {
		return either
	}
	return canIf(i.manages && u.root)
}

func tracer(i attackInit, u attackUser) chance {
	if master(i, u) == cannot {
		return cannot
	}
	return either
}

// hostileAttack is one attack. Its name is its verb of integration/hostile.
type hostileAttack struct {
	name string
	by   func(i attackInit, u attackUser) chance
	opts []taskOption
	// unread says that nobody reads the command's output.
	unread bool
	// outside is done to the task while the attack lasts.
	outside func(c *attackCell)
	// ends says that the attack may end the container by itself, also for want of memory.
	ends bool
	// holds says that it holds up the container's execs, which is its own affair.
	holds bool
}

var hostileAttacks = []hostileAttack{
	{name: "sock-flood", by: socket},
	{name: "sock-garbage", by: socket},
	{name: "sock-roles", by: socket},
	{name: "sock-lies", by: socket, ends: true},
	{name: "sock-endless", by: socket, ends: true},
	{name: "sock-hold", by: socket},
	{name: "sock-deaf", by: socket},
	{name: "notify-flood", by: notifySocket},
	{name: "fd-linger", by: socket},
	{name: "fd-backlog", by: socket},
	{name: "fd-kinds", by: socket},
	{name: "fd-many", by: socket},
	{name: "fd-fuse", by: fuse},
	{name: "fd-fuse-kept", by: fuse},
	{name: "fd-notify", by: notifySocket},
	{name: "cg-deep", by: writableCgroup},
	{name: "cg-many", by: writableCgroup},
	{name: "cg-move", by: writableCgroup},
	{name: "cg-freeze", by: writableCgroup, holds: true},
	{name: "cg-limits", by: writableCgroup, holds: true},
	{name: "run-fill", by: fillable},
	{name: "run-mount", by: mounter},
	{name: "run-lease", by: lessor, holds: true},
	{name: "out-fill", by: anyone, unread: true},
	{name: "out-flags", by: anyone},
	{name: "out-hold", by: anyone, ends: true},
	{name: "tty-storm", by: anyone, opts: []taskOption{withTerminal()}},
	{name: "console-flood", by: console},
	{name: "take-over", by: usurper, ends: true, opts: []taskOption{withTerminal(), withRich("on-exit", "keep")}},
	{name: "launcher-stop", by: master, outside: (*attackCell).manySignals},
	{name: "launcher-trace", by: tracer, outside: (*attackCell).manySignals},
	{name: "sig-storm", by: anyone, ends: true},
	{name: "sig-ignore", by: anyone, outside: (*attackCell).manySignals},
	{name: "exec-stop", by: anyone, holds: true},
	{name: "fork-storm", by: anyone, ends: true},
	{name: "fork-stay", by: anyone},
	{name: "fork-tree", by: anyone},
	{name: "clone-odd", by: anyone},
	{name: "pid-cycle", by: anyone},
	{name: "mem-oom", by: anyone, ends: true, holds: true},
	{name: "mem-files", by: anyone, ends: true, holds: true},
	{name: "mem-limits", by: anyone, ends: true, holds: true},
}

// attackTable collects what became of the cells.
type attackTable struct {
	lock    sync.Mutex
	cells   map[string]string // by attack, init and user
	reasons map[string]string // why one is not "ok"
}

func cellKey(parts ...string) string { return strings.Join(parts, "/") }

func (m *attackTable) set(a hostileAttack, i attackInit, u attackUser, state, reason string) {
	m.lock.Lock()
	defer m.lock.Unlock()
	key := cellKey(a.name, i.name, u.name)
	m.cells[key] = state
	delete(m.reasons, key)
	if reason != "" {
		m.reasons[key] = reason
	}
}

// text is the table in Markdown: a column for each init, in which there is a mark for each user.
func (m *attackTable) text() string {
	m.lock.Lock()
	defer m.lock.Unlock()
	var b strings.Builder
	var users []string
	for _, u := range attackUsers {
		users = append(users, u.name)
	}
	fmt.Fprintf(&b, "In each cell: %s.\n\n| |", strings.Join(users, ", "))
	for _, i := range attackInits {
		fmt.Fprintf(&b, " %s |", i.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(attackInits)) + "\n")
	for _, a := range hostileAttacks {
		fmt.Fprintf(&b, "| %s |", a.name)
		for _, i := range attackInits {
			var marks []string
			for _, u := range attackUsers {
				if mark := m.cells[cellKey(a.name, i.name, u.name)]; mark != "" {
					marks = append(marks, mark)
				} else {
					marks = append(marks, "·") // not tried
				}
			}
			fmt.Fprintf(&b, " %s |", strings.Join(marks, ", "))
		}
		b.WriteString("\n")
	}
	var why []string
	for key, reason := range m.reasons {
		why = append(why, fmt.Sprintf("%s %s: %s", m.cells[key], key, reason))
	}
	slices.Sort(why)
	return b.String() + "\n" + strings.Join(why, "\n") + "\n"
}

// chosenAttacks says which cells are tried: all with RICH_TEST_HOSTILE=all, else each attack once, by turns on every init
// and by every user that can make it.
func chosenAttacks() func(a hostileAttack, i attackInit, u attackUser) bool {
	if os.Getenv("RICH_TEST_HOSTILE") == "all" {
		return func(hostileAttack, attackInit, attackUser) bool { return true }
	}
	chosen := map[string]bool{}
	for n, a := range hostileAttacks {
		byChance := map[chance][]string{}
		for _, i := range attackInits {
			for _, u := range attackUsers {
				byChance[a.by(i, u)] = append(byChance[a.by(i, u)], cellKey(a.name, i.name, u.name))
			}
		}
		keys := byChance[can]
		if len(keys) == 0 {
			keys = byChance[either]
		}
		if len(keys) > 0 {
			// 7 has no divisor in common with the number of cells in a row.
			chosen[keys[n*7%len(keys)]] = true
		}
	}
	return func(a hostileAttack, i attackInit, u attackUser) bool { return chosen[cellKey(a.name, i.name, u.name)] }
}

// TestHostileContainer is not parallel to others: the host is compared.
func TestHostileContainer(t *testing.T) {
	compare := snapshotHost(t)
	table := &attackTable{cells: map[string]string{}, reasons: map[string]string{}}
	chosen := chosenAttacks()
	t.Run("pods", func(t *testing.T) {
		for _, i := range attackInits {
			for _, u := range attackUsers {
				attacks := slices.DeleteFunc(slices.Clone(hostileAttacks), func(a hostileAttack) bool { return !chosen(a, i, u) })
				if len(attacks) == 0 {
					continue
				}
				t.Run(cellKey(i.name, u.name), func(t *testing.T) {
					t.Parallel()
					pod := &attackPod{t: t, table: table, init: i, user: u}
					pod.attack(attacks)
				})
			}
		}
	})
	t.Logf("the attacks:\n%s", table.text())
	if os.Getenv("RICH_TEST_HOSTILE") == "all" {
		if err := os.WriteFile(buildPath("attacks.md"), []byte(table.text()), 0o644); err != nil {
			t.Error(err)
		}
	}
	compare()
}

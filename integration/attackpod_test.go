package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
	"containerd-shim-rich/launch"
)

// attackPod is a shim with a quiet container, and one hostile container after the other.
type attackPod struct {
	t     *testing.T
	table *attackTable
	init  attackInit
	user  attackUser

	quiet *task // nil if there is none, or it is lost with its shim
	shim  int
}

// start starts the pod, unless it is there.
func (p *attackPod) start(t *testing.T) {
	t.Helper()
	if p.quiet != nil {
		return
	}
	group := newID(p.t)
	p.quiet = startTask(p.t, imageBusybox, withID(group), withAnnotation(groupAnnotation, group), withInit("none"), withArgs("sleep", "100000"))
	p.shim = p.quiet.shimPID()
}

const groupAnnotation = "io.containerd.runc.v2.group"

// attack makes all attacks, those first asked for that can be made.
func (p *attackPod) attack(attacks []hostileAttack) {
	possible := p.possible()
	for _, a := range attacks {
		reason, found := possible[a.name]
		p.t.Run(a.name, func(t *testing.T) {
			switch want := a.by(p.init, p.user); {
			case !found:
				p.table.set(a, p.init, p.user, "FAILED", "the program does not know the attack, or did not come so far")
				t.Fatal("the program does not know the attack, or did not come so far")
			case reason == "" && want == cannot:
				p.table.set(a, p.init, p.user, "FAILED", "it should not be possible")
				t.Fatal("it should not be possible")
			case want == absent:
				p.table.set(a, p.init, p.user, "n/a", "it is not there")
				return
			case reason != "" && want == can:
				p.table.set(a, p.init, p.user, "FAILED", "it should be possible: "+reason)
				t.Fatalf("it should be possible: %s", reason)
			case reason != "":
				p.table.set(a, p.init, p.user, "n/a", reason)
				return
			}
			p.start(t)
			c := &attackCell{t: t, pod: p, attack: a}
			c.run()
		})
	}
	if p.quiet != nil {
		p.quiet.Kill(syscall.SIGKILL)
		p.quiet.Wait(runLimit)
		p.quiet.Delete()
	}
}

// possible asks the program, in a container of this kind, which attacks can be made there: each has a reason if it cannot.
func (p *attackPod) possible() map[string]string {
	dir := p.report(p.t)
	run := startTask(p.t, p.init.image, p.options(dir, withTerminal(), withArgs(hostilePath, "list"))...)
	var content []byte
	eventually(p.t, initLimit, "what can be attacked", func() (err error) {
		content, err = os.ReadFile(filepath.Join(dir, "possible"))
		return err
	})
	ctx, cancel := private.within(callLimit)
	defer cancel()
	_ = run.Task.Kill(ctx, syscall.SIGKILL) // it may have ended
	run.Wait(runLimit)
	run.Delete()
	possible := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		possible[name] = strings.TrimPrefix(strings.TrimPrefix(answer, "yes"), "no ")
	}
	return possible
}

// hostilePath is where the program is in a container, and reportPath what it writes to.
const (
	hostilePath = "/hostile"
	reportPath  = "/report"
)

// report makes a folder for what the program says.
func (p *attackPod) report(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// options are those of every container that attacks. Its memory and processes are limited, so that it hurts itself alone.
func (p *attackPod) options(dir string, more ...taskOption) []taskOption {
	opts := append([]taskOption{
		// As CRI has it.
		withSpec(oci.WithMounts([]specs.Mount{{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}}})),
		withSpec(oci.WithMemoryLimit(192<<20), oci.WithPidsLimit(1000)),
		withBind(buildPath("bin/hostile"), hostilePath), withBind(dir, reportPath, "rbind", "rw"),
		withEnv(fmt.Sprintf("HOSTILE_VERSION=%d", launch.Version), "HOSTILE_MS=1000"),
	}, p.init.opts...)
	return append(append(opts, p.user.opts...), more...)
}

// logged counts the bytes of containerd's log beyond an offset that are about this pod. What a user's containerd does not
// log by default does not count.
func (p *attackPod) logged(offset int64) (size int) {
	file, err := os.Open(private.Log)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		p.t.Fatal(err)
	}
	content := make([]byte, max(0, info.Size()-offset))
	n, _ := file.ReadAt(content, offset) // what another pod adds meanwhile does not matter
	// Lines that are too long for a pipe are mixed with others, and lose their ends.
	for _, line := range bytes.Split(content[:n], []byte(`time="`)) {
		if bytes.Contains(line, []byte(p.quiet.ID)) && !bytes.Contains(line, []byte("level=debug")) {
			size += len(line)
		}
	}
	return size
}

func logSize() int64 {
	info, err := os.Stat(private.Log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lose ends a shim that hangs with a task, with all that it had, and returns what it hung in.
func (p *attackPod) lose(attacker *task) string {
	stacks := blockedThreads(p.shim)
	for _, id := range p.groupCgroups() {
		endCgroup(id)
	}
	_ = syscall.Kill(p.shim, syscall.SIGKILL)
	for _, t := range []*task{attacker, p.quiet} {
		if t != nil && t.Task != nil {
			t.forget()
		}
	}
	p.quiet = nil
	return stacks
}

// abortFuse ends the FUSE file systems that the program said it made, by the number behind "fuse". A process that waits for
// such a file system cannot be killed.
func abortFuse(t *testing.T, said string) {
	t.Helper()
	for line := range strings.Lines(said) {
		number, found := strings.CutPrefix(strings.TrimSpace(line), "fuse ")
		if !found {
			continue
		}
		dir := t.TempDir()
		if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
			t.Errorf("mount fusectl: %v", err)
			return
		}
		if err := os.WriteFile(filepath.Join(dir, number, "abort"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
}

// groupCgroups are the cgroups of the containers of this pod.
func (p *attackPod) groupCgroups() []string {
	points, _ := containerdtest.CgroupMounts()
	var found []string
	for _, point := range points {
		dirs, _ := filepath.Glob(filepath.Join(point, private.Cgroup(), p.quiet.ID+"*"))
		found = append(found, dirs...)
	}
	return found
}

// endCgroup thaws, kills and removes a cgroup and what is below, however long the names are.
func endCgroup(path string) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	for range 20 {
		endBelow(dir)
		err := unix.Rmdir(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	unix.Close(dir)
}

// endBelow takes the descriptor of a cgroup's folder.
func endBelow(dir int) {
	for name, text := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0", "memory.oom_control": "0"} {
		if fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			_, _ = unix.Write(fd, []byte(text))
			unix.Close(fd)
		}
	}
	if fd, err := unix.Openat(dir, "cgroup.procs", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		var buf [64 << 10]byte
		n, _ := unix.Read(fd, buf[:])
		unix.Close(fd)
		for _, field := range strings.Fields(string(buf[:max(n, 0)])) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	again, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	file := os.NewFile(uintptr(again), "cgroup")
	defer file.Close()
	entries, _ := file.ReadDir(-1)
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if sub, err := unix.Openat(dir, entry.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			endBelow(sub)
			unix.Close(sub)
		}
		_ = unix.Unlinkat(dir, entry.Name(), unix.AT_REMOVEDIR)
	}
}

// blockedThreads describes the threads of a process that wait for something else than work.
func blockedThreads(pid int) string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	fmt.Fprintf(&b, "%d threads\n", len(tasks))
	for _, task := range tasks {
		stack, _ := os.ReadFile(filepath.Join(task, "stack"))
		text := strings.ReplaceAll(strings.TrimSpace(string(stack)), "\n", " ")
		if text == "" || strings.Contains(text, "futex_wait") || strings.Contains(text, "do_epoll_wait") || strings.Contains(text, "ep_poll") {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", filepath.Base(task), text)
	}
	return b.String()
}

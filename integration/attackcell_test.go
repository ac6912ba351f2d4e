package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"

	"containerd-shim-rich/integration/containerdtest"
)

// What holds at the end of each attack.
var (
	// attackLimit bounds the attack itself, a boot included.
	attackLimit = patience(40 * time.Second)
	// endLimit is how long Kill may take, then the exit event, and then Delete.
	endLimit = patience(5 * time.Second)
)

const (
	mostLog    = 64 << 10 // bytes
	mostMemory = 32 << 10 // KiB
	mostDisk   = 1 << 20  // bytes of the host's, in the bundle
	// mostThreads is for those that the Go runtime adds and keeps.
	mostThreads = 64
)

// attackCell is one attack on one init by one user.
type attackCell struct {
	t      *testing.T
	pod    *attackPod
	attack hostileAttack

	dir  string // what the program says
	task *task
	log  *eventLog
	// problems are what did not hold.
	problems []string
}

func (c *attackCell) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// run makes the attack and notes what became of it.
func (c *attackCell) run() {
	c.pod.table.set(c.attack, c.pod.init, c.pod.user, "FAILED", "it did not come to its end")
	hung := c.try()
	if hung {
		stacks := c.pod.lose(c.task)
		abortFuse(c.t, c.state())
		c.t.Logf("the shim is killed; its threads that waited:\n%s", stacks)
		for _, line := range strings.Split(stacks, "\n")[1:] {
			if line != "" {
				c.problem("a thread waited: %.300s", line)
				break
			}
		}
	}
	if len(c.problems) == 0 {
		c.pod.table.set(c.attack, c.pod.init, c.pod.user, "ok", "")
		return
	}
	all := strings.Join(c.problems, "; ")
	c.pod.table.set(c.attack, c.pod.init, c.pod.user, "FAILED", all)
	c.t.Error(all)
}

// shimSize is what a shim has at a moment.
type shimSize struct{ memory, files, threads int }

func (c *attackCell) size(peak bool) shimSize {
	field := "VmRSS"
	if peak {
		field = "VmHWM"
	}
	return shimSize{shimStatus(c.t, c.pod.shim, field), countFiles(c.t, c.pod.shim), shimStatus(c.t, c.pod.shim, "Threads")}
}

// try makes the attack. It tells whether the shim hangs, so that nothing can be expected of it any more.
func (c *attackCell) try() (hung bool) {
	c.dir = c.pod.report(c.t)
	before, logBefore := c.size(false), logSize()
	// From now on VmHWM is the peak since now (proc(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.pod.shim), []byte("5"), 0); err != nil {
		c.t.Fatal(err)
	}
	if !c.begin() {
		return true
	}
	said := c.wait()
	waiting := blockedThreads(c.pod.shim)
	c.bystander("during the attack")
	if size := folderSize(c.task.bundle("rich", "run")); size > mostDisk {
		c.problem("%d bytes of the host's are filled", size)
	}
	if hung := c.end(); hung {
		c.t.Logf("the program said %q", said)
		return true
	}
	c.gone()
	c.bystander("afterwards")
	after := c.size(true)
	if after.memory > before.memory+mostMemory {
		c.problem("the shim's memory was %d KiB before and %d KiB at its peak", before.memory, after.memory)
	}
	if after.threads > before.threads+mostThreads {
		c.problem("the shim has %d threads, before %d", after.threads, before.threads)
	}
	if err := poll(endLimit, func() error {
		if now := countFiles(c.t, c.pod.shim); now > before.files {
			return fmt.Errorf("the shim has %d descriptors, before %d", now, before.files)
		}
		return nil
	}); err != nil {
		c.problem("%v", err)
	}
	if size := c.pod.logged(logBefore); size > mostLog {
		c.problem("the log has grown by %d bytes", size)
	}
	c.t.Logf("waiting: %s", waiting)
	c.t.Logf("the program said %q; memory %d KiB, peak %d; threads %d, %d; log %d bytes", said,
		before.memory, after.memory, before.threads, after.threads, c.pod.logged(logBefore))
	return false
}

// begin starts the container that attacks.
func (c *attackCell) begin() bool {
	c.t.Helper()
	id := fmt.Sprintf("%s-%d", c.pod.quiet.ID, idCounter.Add(1))
	c.log = subscribe(c.t, id)
	opts := c.pod.options(c.dir, append([]taskOption{
		withID(id), withAnnotation(groupAnnotation, c.pod.quiet.ID), withArgs(hostilePath, "run", c.attack.name),
	}, c.attack.opts...)...)
	if c.attack.unread {
		opts = append(opts, withoutReader(newUnread(c.t, false)))
	}
	c.task = newTask(c.t, c.pod.init.image, opts...)
	ctx, cancel := private.within(callLimit)
	defer cancel()
	if err := c.task.Task.Start(ctx); err != nil {
		c.problem("start: %v", err)
		return false
	}
	return true
}

// wait waits until the attack is done, and does meanwhile what is done from outside.
func (c *attackCell) wait() string {
	until := func(word string) {
		err := poll(attackLimit, func() error {
			if !strings.Contains(c.state(), word) && !c.over() {
				return fmt.Errorf("the program said %q", c.state())
			}
			return nil
		})
		if err != nil {
			c.problem("no %q within %v: %v; stderr %q", word, attackLimit, err, tail(c.task.Stderr.String()))
		}
	}
	until("attacking")
	if c.attack.outside != nil {
		until("done")
		c.attack.outside(c)
	} else {
		c.execs()
	}
	until("done")
	said := c.state()
	if !strings.Contains(said, "done\n") && c.over() && !c.attack.ends {
		c.problem("the attack was not made: the program said %q, and the exit is %v", said, c.log.Wait(runtime.TaskExitEventTopic, 0))
	}
	return said
}

// state is what the program said so far.
func (c *attackCell) state() string {
	content, _ := os.ReadFile(filepath.Join(c.dir, "state"))
	return string(content)
}

// over tells whether the task has ended.
func (c *attackCell) over() bool {
	for _, e := range c.log.Events() {
		if c.task.isExit(e) {
			return true
		}
	}
	return false
}

// call makes a call that may not hang.
func (c *attackCell) call(what string, limit time.Duration, call func(ctx context.Context) error) error {
	ctx, cancel := private.within(limit)
	defer cancel()
	err := call(ctx)
	if ctx.Err() != nil {
		c.problem("%s: not within %v", what, limit)
	}
	return err
}

// execs runs programs in the container that is attacking: each ends, or is refused. One that is held up is given up.
func (c *attackCell) execs() {
	for n := range 3 {
		if c.attack.holds {
			ctx, cancel := private.within(time.Second)
			_ = oneExec(ctx, c.task.Task, fmt.Sprintf("e%d", n), execSpec(hostilePath, "true"))
			cancel()
			continue
		}
		_ = c.call("exec", attackLimit, func(ctx context.Context) error {
			return oneExec(ctx, c.task.Task, fmt.Sprintf("e%d", n), execSpec(hostilePath, "true"))
		})
	}
}

// manySignals sends more than a launcher that reads nothing can take (T15).
func (c *attackCell) manySignals() {
	_ = c.call("279 signals", 2*endLimit, func(ctx context.Context) error {
		for range 279 {
			if err := c.task.Task.Kill(ctx, syscall.SIGUSR1); err != nil {
				return err
			}
		}
		return nil
	})
	if c.over() {
		return // USR1 is the end of some
	}
	_ = c.call("TERM", endLimit, func(ctx context.Context) error { return c.task.Task.Kill(ctx, syscall.SIGTERM) })
}

// end is how every attack ends: the task is killed, its exit is announced, and it is deleted.
func (c *attackCell) end() (hung bool) {
	began := time.Now()
	err := c.call("kill", endLimit, func(ctx context.Context) error { return c.task.Task.Kill(ctx, syscall.SIGKILL) })
	if err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, context.DeadlineExceeded) {
		c.problem("kill: %v", err)
	}
	if err := poll(endLimit, func() error {
		if !c.over() {
			return errors.New("no exit event")
		}
		return nil
	}); err != nil {
		c.problem("%v within %v of the kill", err, endLimit)
		return true
	}
	exited := time.Since(began)
	if err := c.call("delete", endLimit, func(ctx context.Context) error {
		_, err := c.task.Task.Delete(ctx)
		return err
	}); err != nil {
		c.problem("delete: %.300v", err)
		return true
	}
	c.t.Logf("exit event after %v, deleted after %v", exited.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	_ = poll(endLimit, func() error {
		for _, topic := range c.log.Topics() {
			if topic == runtime.TaskDeleteEventTopic {
				return nil
			}
		}
		return errors.New("no delete event")
	})
	if err := c.call("delete the container", callLimit, func(ctx context.Context) error {
		return c.task.Container.Delete(ctx, containerd.WithSnapshotCleanup)
	}); err != nil {
		c.problem("delete the container: %v", err)
		return false
	}
	c.task.deleted = true
	return false
}

// gone checks that nothing of the container is left on the host.
func (c *attackCell) gone() {
	err := poll(endLimit, func() error {
		mounts, err := containerdtest.Mounts()
		if err != nil {
			return err
		}
		for _, m := range mounts {
			if containerdtest.IsBelow(m.Point, c.task.bundle()) {
				return fmt.Errorf("left: %s", m.Text)
			}
		}
		if _, err := os.Lstat(c.task.bundle()); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the bundle is left: %w", err)
		}
		points, err := containerdtest.CgroupMounts()
		if err != nil {
			return err
		}
		for _, point := range points {
			path := filepath.Join(point, private.Cgroup(), c.task.ID)
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("left: %s", path)
			}
		}
		processes, err := containerdtest.Processes(private.Dir)
		if err != nil {
			return err
		}
		for _, p := range processes {
			cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
			if strings.Contains(string(cgroups), "/"+c.task.ID) {
				return fmt.Errorf("left: %v", p)
			}
		}
		return nil
	})
	if err != nil {
		c.problem("%.300v", err)
	}
}

// bystander checks that the quiet container of the pod goes on.
func (c *attackCell) bystander(when string) {
	err := c.call("an exec of another container "+when, 2*endLimit, func(ctx context.Context) error {
		return oneExec(ctx, c.pod.quiet.Task, fmt.Sprintf("q%d", c.pod.quiet.execs.Add(1)), execSpec("true"))
	})
	if err != nil {
		c.problem("an exec of another container %s: %v", when, err)
	}
}

// folderSize adds up the files on the file system of a folder.
func folderSize(dir string) int64 {
	var size int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}

// withoutReader has the command write where nobody reads.
func withoutReader(u *unread) taskOption {
	return func(s *taskSettings) { s.streams = u.create }
}

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/integration/containerdtest"
)

// What a container makes of its cgroups goes with it, also where no path leads to it.

// A path of so many levels is too long for the kernel with either kind of name: at most 4096 bytes.
const deepLevels = 60

// clearAfter removes the container's cgroups at the end of a test that has failed, so that it leaves a clean host.
func clearAfter(t *testing.T, id string) {
	t.Helper()
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{}
	for _, point := range points {
		dirs[point] = filepath.Join(point, private.Cgroup(), id)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		if err := cgroup.Kill(dirs, 5*time.Second); err != nil {
			t.Log(err)
		}
		if err := cgroup.Remove(dirs, 5*time.Second); err != nil {
			t.Log(err)
		}
	})
}

// nest makes cgroups in each other below a directory of the container, and returns how many.
func (r *task) nest(dir string, length int, leave ...string) int {
	r.t.Helper()
	got := r.Exec(append([]string{probePath, "nest", dir, strconv.Itoa(length), strconv.Itoa(deepLevels)}, leave...)...)
	depth, err := strconv.Atoi(strings.TrimSpace(got.Stdout))
	if err != nil || got.Code != 0 {
		r.fatal("nest cgroups in %s: %+v", dir, got)
	}
	return depth
}

// noCgroups fails the test if cgroups of the container are left.
func (r *task) noCgroups() {
	r.t.Helper()
	if left := r.cgroupsOf(); len(left) > 0 {
		r.t.Errorf("left: %v", left)
	}
}

// killAndDelete ends a task that must not be able to prevent it.
func (r *task) killAndDelete() {
	r.t.Helper()
	r.Kill(syscall.SIGKILL)
	if code := r.Wait(runLimit); code != 137 {
		r.t.Errorf("exit status %d, want 137", code)
	}
	r.Delete()
	for _, dir := range r.cgroupsOf() {
		if entries, err := os.ReadDir(filepath.Join(dir, "alone")); err == nil {
			r.t.Errorf("left: %s with %d files", dir, len(entries))
		}
		_ = syscall.Rmdir(dir) // the parent of a spec is nobody's
	}
	r.noCgroups()
}

func TestT3DeepCgroups(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		for name, leave := range map[string][]string{"empty": nil, "stay": {"stay"}, "frozen": {"frozen"}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				id := newID(t)
				clearAfter(t, id)
				run := startTask(t, v.image, v.with(withID(id), withProbe(), withArgs("sh", "-c", ready+idle))...)
				run.WaitOutput("ready", runLimit)
				// On cgroup v2 the limit cannot be lifted; names of the full length get too far all the same.
				for _, length := range []int{100, 255} {
					depth := run.nest(cgroupRoot, length, leave...)
					if depth*(length+1) < 4096 && !unified() || depth > cgroup.MaxDepth && unified() {
						t.Errorf("there are %d levels with names of %d bytes", depth, length)
					}
				}
				// Who asks for the processes is told.
				ctx, cancel := private.within(callLimit)
				defer cancel()
				if pids, err := run.Task.Pids(ctx); err != nil || len(pids) < 2 {
					t.Errorf("the processes are %v, %v", pids, err)
				}
				run.killAndDelete()
			})
		}
	})
}

// The same where the shim is gone, and the call that cleans up after it has to do it. Not parallel: the host is compared.
func TestT3DeepCgroupsShimKilled(t *testing.T) {
	for name, leave := range map[string][]string{"empty": nil, "stay": {"stay"}} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			id := newID(t)
			clearAfter(t, id)
			log := subscribe(t, id)
			run := startTask(t, imageBookworm, withID(id), withInit("systemd"), withProbe(), withArgs("sh", "-c", ready+idle))
			run.WaitOutput("ready", runLimit)
			for _, length := range []int{100, 255} {
				run.nest(cgroupRoot, length, leave...)
			}
			run.killed(log, 137)
			eventually(t, runLimit, "the end of the cgroups", func() error {
				if left := run.cgroupsOf(); len(left) > 0 {
					return fmt.Errorf("left: %v", left)
				}
				return nil
			})
			compare()
		})
	}
}

// With the host's process ids the end of pid 1 ends nobody else, and only the cgroups tell who belongs to the container.
func TestT3DeepCgroupsHostPIDs(t *testing.T) {
	t.Parallel()
	all := []string{"stay", "frozen"}
	if !unified() {
		// The kernel makes no threaded cgroup below one that passes on memory limits, as those above a container do on v2 alone.
		all = append(all, "threaded")
	}
	for _, leave := range all {
		for _, v := range []variant{plain, dumbInit} {
			t.Run(leave+" "+v.name, func(t *testing.T) {
				t.Parallel()
				id := newID(t)
				clearAfter(t, id)
				own := private.Cgroup() + "/" + id
				if leave == "threaded" {
					// Where no other cgroup beside it has processes, a cgroup can be made a threaded one.
					own += "/alone"
				}
				run := startTask(t, v.image, v.with(withID(id), withProbe(), withBind(cgroupRoot, "/cgroups", "rbind", "rw"),
					withSpec(oci.WithHostNamespace(specs.PIDNamespace), oci.WithCgroup(own)), withArgs("sh", "-c", ready+idle))...)
				run.WaitOutput("ready", runLimit)
				var dirs []string
				if unified() {
					dirs = []string{"/cgroups" + own}
				} else {
					dirs = []string{"/cgroups/unified" + own, "/cgroups/freezer" + own, "/cgroups/memory" + own, "/cgroups/devices" + own}
				}
				how := leave
				if leave == "threaded" {
					// The kernel does not kill all of such a cgroup at once, nor list its processes. It has to be empty to become one.
					const script = `cd "$1"; all=; while read p; do all="$all $p"; done <cgroup.procs
for p in $all; do echo $p >../cgroup.procs || exit; done
echo threaded >cgroup.type || exit
for p in $all; do for t in /proc/$p/task/*; do echo ${t##*/} >cgroup.threads || exit; done; done`
					if got := run.Exec("sh", "-c", script, "sh", dirs[0]); got.Code != 0 {
						run.fatal("make it threaded: %+v", got)
					}
					how = "stay"
				}
				for i, dir := range dirs {
					if leave == "threaded" && i == 0 {
						continue
					}
					if leave == "frozen" && !unified() && !strings.Contains(dir, "freezer") {
						run.nest(dir, 100, "stay")
						continue
					}
					run.nest(dir, 100, how)
				}
				pids := processesIn(t, id)
				if want := len(dirs); leave != "threaded" && len(pids) != want {
					t.Errorf("the processes are %v, want %d", pids, want)
				}
				run.killAndDelete()
				eventually(t, runLimit, "the end of the processes", func() error {
					for _, pid := range pids {
						if status, err := os.ReadFile("/proc/" + pid + "/status"); err == nil && strings.Contains(string(status), "Name:\tprobe") && !strings.Contains(string(status), "State:\tZ") {
							return fmt.Errorf("process %s is left", pid)
						}
					}
					return nil
				})
			})
		}
	}
}

// Pid 1 that is kept frozen is killed all the same, also where another process freezes it anew again and again.
func TestT3Frozen(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit}, func(t *testing.T, v variant) {
		id := newID(t)
		clearAfter(t, id)
		run := startTask(t, v.image, v.with(withID(id), withBind(cgroupRoot, "/cgroups", "rbind", "rw"), withArgs("sh", "-c", ready+idle))...)
		run.WaitOutput("ready", runLimit)
		dir, file, value := "/cgroups/freezer", "freezer.state", "FROZEN"
		if unified() {
			dir, file, value = "/cgroups", "cgroup.freeze", "1"
		}
		script := fmt.Sprintf("cd %s%s/%s && mkdir -p deep/deep && cd deep/deep && echo 1 >cgroup.procs && (while :; do echo %s >%s; done >/dev/null 2>&1 &)",
			dir, private.Cgroup(), id, value, file)
		for range 2 {
			if got := run.Exec("sh", "-c", script); got.Code != 0 {
				run.fatal("freeze pid 1: %+v", got)
			}
		}
		run.killAndDelete()
	})
}

// processesIn finds the probes of a container with the host's process ids.
func processesIn(t *testing.T, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		// What their cgroups are called is too long to be read.
		if line, _ := os.ReadFile(file); strings.HasPrefix(string(line), probePath+"\x00nest") && strings.Contains(string(line), id) {
			found = append(found, filepath.Base(filepath.Dir(file)))
		}
	}
	return found
}

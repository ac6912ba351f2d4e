package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// The tests about limits, and about the cgroups of an init that manages its own. They run on cgroup v2 and on v1 with a
// cgroup2 hierarchy beside it (hybrid), where the container's init has no controllers.

const cgroupRoot = "/sys/fs/cgroup"

// unified tells whether the host has cgroup v2 alone.
func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroup2Mount is where the host has its cgroup2 hierarchy.
func cgroup2Mount() string {
	if unified() {
		return cgroupRoot
	}
	return filepath.Join(cgroupRoot, "unified")
}

// ownCgroup is the container's own cgroup in the cgroup2 hierarchy, on the host. That of the spec is around it on cgroup v2.
func (r *task) ownCgroup(name ...string) string {
	elements := []string{cgroup2Mount(), private.Cgroup(), r.ID}
	if unified() {
		elements = append(elements, "rich")
	}
	return filepath.Join(append(elements, name...)...)
}

// limitFile is a file with a limit in the cgroup that the spec names.
type limitFile struct {
	controller, v1, v2 string
}

var (
	memoryMax = limitFile{"memory", "memory.limit_in_bytes", "memory.max"}
	pidsMax   = limitFile{"pids", "pids.max", "pids.max"}
	cpuStat   = limitFile{"cpu", "cpu.stat", "cpu.stat"}
)

// at is the file of the container with this cgroupsPath.
func (f limitFile) at(path string) string {
	if unified() {
		return filepath.Join(cgroupRoot, path, f.v2)
	}
	return filepath.Join(cgroupRoot, f.controller, path, f.v1)
}

// limit reads a file of the cgroup that the spec names.
func (r *task) limit(f limitFile) string {
	r.t.Helper()
	return readFile(r.t, f.at(private.Cgroup()+"/"+r.ID))
}

// cpuQuota reads the CPU quota in microseconds.
func (r *task) cpuQuota() string {
	r.t.Helper()
	quota, _, _ := strings.Cut(r.limit(limitFile{"cpu", "cpu.cfs_quota_us", "cpu.max"}), " ")
	return quota
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// cgroupsOf lists what is left of the container's cgroups, in any hierarchy.
func (r *task) cgroupsOf() []string {
	r.t.Helper()
	points, err := containerdtest.CgroupMounts()
	if err != nil {
		r.t.Fatal(err)
	}
	var found []string
	for _, point := range points {
		at := filepath.Join(point, private.Cgroup(), r.ID)
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, at)
		}
	}
	return found
}

// withResources changes the limits of the spec.
func withResources(change func(*specs.LinuxResources)) taskOption {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		if spec.Linux.Resources == nil {
			spec.Linux.Resources = &specs.LinuxResources{}
		}
		change(spec.Linux.Resources)
		return nil
	})
}

func withMemory(bytes uint64) taskOption { return withSpec(oci.WithMemoryLimit(bytes)) }

// blockDevice finds a disk, for limits on it.
func blockDevice(t *testing.T) (major, minor int64) {
	t.Helper()
	disks, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(disks) == 0 {
		t.Fatalf("no disk to set a limit for: %v", err)
	}
	// Real ones before loop devices, which have nothing behind them.
	slices.SortStableFunc(disks, func(a, b string) int {
		return strings.Count(a, "/loop") - strings.Count(b, "/loop")
	})
	if _, err := fmt.Sscanf(readFile(t, disks[0]), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

// update changes limits of the running task.
func (r *task) update(change *specs.LinuxResources) error {
	ctx, cancel := private.within(callLimit)
	defer cancel()
	return r.Task.Update(ctx, containerd.WithResources(change))
}

// metrics are the container's, decoded.
func (r *task) metrics() any {
	r.t.Helper()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	metric, err := r.Task.Metrics(ctx)
	if err != nil {
		r.fatal("metrics: %v", err)
	}
	want := "io.containerd.cgroups.v1.Metrics"
	if unified() {
		want = "io.containerd.cgroups.v2.Metrics"
	}
	if got := metric.Data.GetTypeUrl(); got != want {
		r.t.Errorf("the metrics are %s, want %s", got, want)
	}
	decoded, err := typeurl.UnmarshalAny(metric.Data)
	if err != nil {
		r.fatal("metrics: %v", err)
	}
	return decoded
}

// Limits of the spec are in the cgroup it names, can be read inside, can be changed, and are in the metrics.
func TestCgroupLimits(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit, systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		major, minor := blockDevice(t)
		run := startTask(t, v.image, v.with(withMemory(160<<20), withSpec(oci.WithPidsLimit(150), oci.WithCPUCFS(80000, 100000)),
			withResources(func(r *specs.LinuxResources) {
				device := specs.LinuxThrottleDevice{Rate: 50 << 20}
				device.Major, device.Minor = major, minor
				r.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{device}}
			}),
			withArgs("sh", "-c", ready+"exec sleep infinity"))...)
		run.WaitOutput("ready", runLimit)
		check := func(memory, pids, quota string) {
			t.Helper()
			for _, got := range []struct{ what, value, want string }{
				{"memory", run.limit(memoryMax), memory}, {"pids", run.limit(pidsMax), pids}, {"cpu quota", run.cpuQuota(), quota},
			} {
				if got.value != got.want {
					t.Errorf("%s is limited to %s, want %s", got.what, got.value, got.want)
				}
			}
			io := run.limit(limitFile{"blkio", "blkio.throttle.read_bps_device", "io.max"})
			if want := fmt.Sprintf("%d:%d ", major, minor); !strings.HasPrefix(io, want) || !strings.Contains(io, fmt.Sprint(50<<20)) {
				t.Errorf("io is limited to %q", io)
			}
			// Programs size themselves after what they read there.
			if unified() && v.init == "systemd" {
				if got := run.Exec("cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"); got.Stdout != memory+"\n"+pids+"\n" {
					t.Errorf("inside %+v, want %s and %s", got, memory, pids)
				}
			}
		}
		check(fmt.Sprint(160<<20), "150", "80000")
		memory, pids, quota, period := int64(192<<20), int64(170), int64(90000), uint64(100000)
		if err := run.update(&specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Quota: &quota, Period: &period},
		}); err != nil {
			run.fatal("update: %v", err)
		}
		check(fmt.Sprint(192<<20), "170", "90000")
		// One that is refused changes nothing.
		other := int64(180)
		if err := run.update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &other}, CPU: &specs.LinuxCPU{Cpus: "4000"}}); err == nil {
			t.Error("there are no 4000 CPUs, but the update was accepted")
		}
		check(fmt.Sprint(192<<20), "170", "90000")

		var used, limit, current, most, time uint64
		switch m := run.metrics().(type) {
		case *cgroup1.Metrics:
			used, limit, current, most, time = m.Memory.Usage.Usage, m.Memory.Usage.Limit, m.Pids.Current, m.Pids.Limit, m.CPU.Usage.Total
		case *cgroup2.Metrics:
			used, limit, current, most, time = m.Memory.Usage, m.Memory.UsageLimit, m.Pids.Current, m.Pids.Limit, m.CPU.UsageUsec
		}
		if used == 0 || used > limit || limit != 192<<20 || current == 0 || current > most || most != 170 || time == 0 {
			t.Errorf("the metrics say memory %d of %d, %d of %d processes, %d of CPU time", used, limit, current, most, time)
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
		if left := run.cgroupsOf(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// An update resets what contradicts it, as runc update does: limits of the spec that it does not mention.
func TestCgroupUpdate(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		limit, swap, shares := int64(160<<20), int64(200<<20), uint64(512)
		run := newTask(t, v.image, v.with(withResources(func(r *specs.LinuxResources) {
			r.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &swap}
			r.CPU = &specs.LinuxCPU{Shares: &shares}
		}), withArgs("sh", "-c", ready+"exec sleep infinity"))...)
		update := func(r *specs.LinuxResources) {
			t.Helper()
			if err := run.update(r); err != nil {
				run.fatal("update: %v", err)
			}
		}
		has := func(f limitFile, v1, v2 string) {
			t.Helper()
			want := v1
			if unified() {
				want = v2
			}
			if got := run.limit(f); got != want {
				t.Errorf("%s%s is %s, want %s", f.v1, f.v2, got, want)
			}
		}
		both := limitFile{"memory", "memory.memsw.limit_in_bytes", "memory.swap.max"}
		weight := limitFile{"cpu", "cpu.shares", "cpu.weight"}
		idle := limitFile{"cpu", "cpu.idle", "cpu.idle"}
		has(memoryMax, fmt.Sprint(limit), fmt.Sprint(limit))
		has(both, fmt.Sprint(swap), fmt.Sprint(swap-limit))
		has(weight, "512", "59") // runc's conversion
		// What was set before the start is not set back by it, and what was set while it stands still not by the rest.
		processes := int64(300)
		update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &processes}})
		run.Start()
		run.WaitOutput("ready", runLimit)
		has(pidsMax, "300", "300")
		ctx, cancel := private.within(callLimit)
		defer cancel()
		eventually(t, callLimit, "pause", func() error { return run.Task.Pause(ctx) })
		processes = 400
		update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &processes}})
		if status, err := run.Task.Status(ctx); err != nil || status.Status != containerd.Paused {
			t.Errorf("after an update the paused task is %v, %v", status, err)
		}
		if err := run.Task.Resume(ctx); err != nil {
			run.fatal("resume: %v", err)
		}
		has(pidsMax, "400", "400")
		if got := run.Exec("true"); got.Code != 0 {
			t.Errorf("exec: %+v", got)
		}

		none, one, zero := int64(-1), int64(1), int64(0)
		const unlimited = "9223372036854771712" // the most of v1, in pages
		update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &none}})
		has(memoryMax, unlimited, "max")
		has(both, unlimited, "max")
		has(weight, "512", "59")
		update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: &one}})
		has(idle, "1", "1")
		update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
		has(memoryMax, fmt.Sprint(limit), fmt.Sprint(limit))
		has(both, unlimited, "max")
		has(idle, "1", "1")
		other := uint64(2048)
		update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: &zero}})
		has(idle, "0", "0")
		update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &other}, Memory: &specs.LinuxMemory{Swap: &swap}})
		has(both, fmt.Sprint(swap), fmt.Sprint(swap-limit))
		if got := run.limit(weight); got != "2048" && !unified() || got == "59" || got == "0" {
			t.Errorf("the shares are %s", got)
		}

		err := run.update(&specs.LinuxResources{Unified: map[string]string{"memory.high": fmt.Sprint(limit / 2)}})
		if !unified() {
			if err == nil {
				t.Error("values for cgroup v2 were accepted on v1")
			}
			has(memoryMax, fmt.Sprint(limit), "")
		} else {
			if err != nil {
				t.Errorf("update: %v", err)
			}
			has(limitFile{"memory", "", "memory.high"}, "", fmt.Sprint(limit/2))
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

// Both kinds of options can name a cgroup for the shim.
func TestCgroupShim(t *testing.T) {
	t.Parallel()
	// Not in all hierarchies of v1: a new cgroup has no processors, and takes no process.
	points := []string{filepath.Join(cgroupRoot, "memory"), filepath.Join(cgroupRoot, "pids")}
	if unified() {
		points = []string{cgroupRoot}
	}
	for name, options := range map[string]func(path string) any{
		"runc": func(path string) any { return &options.Options{ShimCgroup: path} },
		"TOML": func(path string) any {
			return &runtimeoptions.Options{ConfigBody: fmt.Appendf(nil, "ShimCgroup = %q\n[rich]\ninit = \"dumb-init\"\n", path)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := newID(t)
			path := private.Cgroup() + "/shim-" + id
			for _, point := range points {
				dir := filepath.Join(point, path)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := poll(runLimit, func() error { return os.Remove(dir) }); err != nil {
						t.Error(err) // the shim should be gone
					}
				}()
			}
			run := startTask(t, imageBookworm, withID(id), withRuntimeOptions(options(path)), withArgs("sleep", "1000"))
			found := shims(t, id)
			if len(found) != 1 {
				t.Fatalf("the shims are %v", found)
			}
			joined := 0
			for _, line := range readLines(t, fmt.Sprintf("/proc/%d/cgroup", found[0])) {
				if strings.HasSuffix(line, path) {
					joined++
				}
			}
			if joined < len(points) {
				t.Errorf("the shim is in\n%s", readFile(t, fmt.Sprintf("/proc/%d/cgroup", found[0])))
			}
			run.Kill(syscall.SIGKILL)
			run.Wait(runLimit)
			run.Delete()
		})
		t.Run(name+" that is not there", func(t *testing.T) {
			t.Parallel()
			_, err := tryTask(t, imageBookworm, withRuntimeOptions(options("/no/such/cgroup")), withArgs("sleep", "1000"))
			expectError(t, err, []string{"ShimCgroup", "/no/such/cgroup"})
		})
	}
}

// foreignDevice is one that no container may use by its spec: /dev/fuse.
const foreignDevice = "10 229"

// mayUse tells whether the container may open the foreign device, which need not exist.
func (r *task) mayUse() bool {
	r.t.Helper()
	got := r.ExecAs(byOperator, "sh", "-c", "rm -f /dev/foreign; mknod /dev/foreign c "+foreignDevice+" && head -c 0 /dev/foreign")
	if got.Code != 0 && !strings.Contains(got.Stderr, "cannot open") {
		r.fatal("open the foreign device: %+v", got)
	}
	return !strings.Contains(got.Stderr, "Operation not permitted")
}

// allowDevices adds to the container's rules what the host's administrator, or the hook of a GPU's vendor, may add.
func (r *task) allowDevices() {
	r.t.Helper()
	if !unified() {
		rule := "c " + strings.ReplaceAll(foreignDevice, " ", ":") + " rwm"
		if err := os.WriteFile(filepath.Join(cgroupRoot, "devices", private.Cgroup(), r.ID, "devices.allow"), []byte(rule), 0); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	dir, err := os.Open(r.devicesCgroup())
	if err != nil {
		r.t.Fatal(err)
	}
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupDevice})
	if err != nil || len(attached.Programs) != 1 {
		r.t.Fatalf("the programs with the rules are %+v, %v", attached, err)
	}
	old, err := ebpf.NewProgramFromID(attached.Programs[0].ID)
	if err != nil {
		r.t.Fatal(err)
	}
	defer old.Close()
	all, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupDevice, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer all.Close()
	if err := errors.Join(
		link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: all, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI}),
		link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: old, Attach: ebpf.AttachCGroupDevice}),
	); err != nil {
		r.t.Fatal(err)
	}
}

// devicesCgroup is the cgroup with the rules for devices, on cgroup v2.
func (r *task) devicesCgroup() string {
	own := r.ownCgroup()
	if _, err := os.Stat(own); err != nil {
		return filepath.Dir(own) // it may not write to its cgroups, and has none around it
	}
	return own
}

// An update leaves rules for devices alone that others have added, one that is refused does as well, and processes can be
// started afterwards.
func TestCgroupDevices(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withMemory(160<<20), withArgs("sh", "-c", ready+"exec sleep infinity"))...)
		run.WaitOutput("ready", runLimit)
		if v.init == "systemd" {
			run.booted()
		}
		if run.mayUse() {
			t.Fatal("the device is allowed from the beginning")
		}
		run.allowDevices()
		if !run.mayUse() {
			t.Fatal("the device is not allowed by hand")
		}
		for _, limit := range []int64{192 << 20, 208 << 20} {
			if err := run.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
				run.fatal("update: %v", err)
			}
			if got := run.limit(memoryMax); got != fmt.Sprint(limit) {
				t.Errorf("memory is limited to %s, want %d", got, limit)
			}
			if !run.mayUse() {
				t.Error("after an update the device is not allowed any more")
			}
		}
		pids := int64(170)
		if err := run.update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Cpus: "4000"}}); err == nil {
			t.Error("there are no 4000 CPUs, but the update was accepted")
		}
		if !run.mayUse() {
			t.Error("after an update that was refused the device is not allowed any more")
		}
		if got := run.limit(memoryMax); got != fmt.Sprint(208<<20) {
			t.Errorf("memory is limited to %s after an update that was refused", got)
		}
		// All at once, so that they are started by several handles of libcontainer.
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				if got, err := run.TryExec(byOperator, "true"); err != nil || got.Code != 0 {
					t.Errorf("exec: %+v, %v", got, err)
				}
			})
		}
		all.Wait()
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

// What libcontainer raises in the shim to set rules for devices is not inherited: the limits of all that the shim starts are
// those with which containerd has started it.
func TestCgroupRlimits(t *testing.T) {
	t.Parallel()
	const limits = "cat /proc/self/limits"
	dir := t.TempDir()
	logger := filepath.Join(dir, "logger")
	if err := os.WriteFile(logger, []byte("#!/bin/sh\ncat /proc/self/limits >$1.part\nmv $1.part $1\nexec 5>&-\nexec cat <&3 >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	forEach(t, []variant{plain, dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		group := newID(t)
		opts := func(script string) []taskOption {
			return v.with(withAnnotation("io.containerd.runc.v2.group", group), withProcess(func(p *specs.Process) { p.Rlimits = nil }), withArgs("sh", "-c", script))
		}
		run := startTask(t, v.image, append(opts(limits+"; "+ready+idle), withID(group))...)
		run.WaitOutput("ready\n", runLimit)
		first, _, _ := strings.Cut(run.Stdout.String(), "ready\n")
		locked := func(text string) string {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "Max locked memory") {
					return line
				}
			}
			return "no locked memory in " + text
		}
		if got, want := locked(first), locked(readFile(t, fmt.Sprintf("/proc/%d/limits", private.Pid()))); got != want {
			t.Errorf("got %q, want containerd's %q", got, want)
		}
		exec := func() {
			t.Helper()
			if got := run.Exec("sh", "-c", limits); got.Stdout != first {
				t.Errorf("an exec has\n%swant\n%s", got.Stdout, first)
			}
		}
		exec()
		file := filepath.Join(dir, v.name)
		second := newTask(t, v.image, opts(limits+" >/limits; "+ready+idle)...)
		second.replace(fixedIO{Stdout: "binary://" + logger + "?" + file}.create)
		second.Start()
		eventually(t, runLimit, "the second container's limits", func() error {
			if got := second.Exec("cat", "/limits"); got.Stdout != first {
				return fmt.Errorf("it has\n%swant\n%s", got.Stdout, first)
			}
			return nil
		})
		if got := readFile(t, file); got != strings.TrimSpace(first) {
			t.Errorf("a logging program has\n%s\nwant\n%s", got, first)
		}
		if got := shims(t, run.ID, second.ID); len(got) != 1 {
			t.Errorf("the shims are %v, want one", got)
		}
		exec()
		for _, r := range []*task{second, run} {
			r.Kill(syscall.SIGKILL)
			r.Wait(runLimit)
			r.Delete()
		}
	})
}

func TestCgroupPids(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{plain, dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withSpec(oci.WithPidsLimit(60)),
			withArgs("sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done"))...)
		run.outcome(log, 2)
		if !strings.Contains(run.Stderr.String(), "Cannot fork") {
			t.Errorf("stderr %q", run.Stderr)
		}
	})
}

func TestCgroupCPU(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withArgs("sh", "-c", ready+"while :; do :; done"))...)
		run.WaitOutput("ready", runLimit)
		// So little that it is used up on the busiest host, but an init could not boot with it.
		quota, period := int64(2000), uint64(100000)
		if err := run.update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}); err != nil {
			run.fatal("update: %v", err)
		}
		eventually(t, runLimit, "throttling", func() error {
			var periods, throttled uint64
			switch m := run.metrics().(type) {
			case *cgroup1.Metrics:
				periods, throttled = m.CPU.Throttling.Periods, m.CPU.Throttling.ThrottledPeriods
			case *cgroup2.Metrics:
				periods, throttled = m.CPU.NrPeriods, m.CPU.NrThrottled
			}
			if periods == 0 || throttled == 0 {
				return fmt.Errorf("%d of %d periods: %s", throttled, periods, run.limit(cpuStat))
			}
			return nil
		})
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
	})
}

// A frozen container does nothing, its services included, and can be killed.
func TestCgroupPause(t *testing.T) {
	t.Parallel()
	const ticks = "while :; do echo >>/run/ticks.$0; sleep 0.02; done"
	forEach(t, []variant{plain, dumbInit, systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withArgs("sh", "-c", ready+ticks, "app"))...)
		run.WaitOutput("ready", runLimit)
		files := []string{"app"}
		if v.init == "systemd" {
			run.booted()
			if got := run.Exec("systemd-run", "sh", "-c", ticks, "service"); got.Code != 0 {
				run.fatal("systemd-run: %+v", got)
			}
			files = append(files, "service")
		}
		count := func(name string) int64 {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/ticks.%s", run.Task.Pid(), name))
			if err != nil {
				return -1
			}
			return info.Size()
		}
		grows := func() {
			t.Helper()
			for _, name := range files {
				before := count(name)
				eventually(t, runLimit, name+" to go on", func() error {
					if now := count(name); now <= max(before, 0) {
						return fmt.Errorf("still %d ticks", now)
					}
					return nil
				})
			}
		}
		call := func(what string, do func(context.Context) error) {
			t.Helper()
			ctx, cancel := private.within(callLimit)
			defer cancel()
			if err := do(ctx); err != nil {
				run.fatal("%s: %v", what, err)
			}
		}
		// On cgroup v1 libcontainer soon gives up on processes that are being made or wait for a CPU.
		pause := func() {
			t.Helper()
			ctx, cancel := private.within(callLimit)
			defer cancel()
			eventually(t, callLimit, "pause", func() error { return run.Task.Pause(ctx) })
		}
		grows()
		pause()
		call("status", func(ctx context.Context) error {
			status, err := run.Task.Status(ctx)
			if status.Status != containerd.Paused {
				t.Errorf("the task is %s", status.Status)
			}
			return err
		})
		var before []int64
		for _, name := range files {
			before = append(before, count(name))
		}
		if _, err := run.TryExec(func(*specs.Process) {}, "true"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("exec while paused: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		for i, name := range files {
			if now := count(name); now != before[i] {
				t.Errorf("%s went on: %d ticks, then %d", name, before[i], now)
			}
		}
		call("resume", run.Task.Resume)
		grows()
		pause()
		run.Kill(syscall.SIGKILL)
		run.outcome(log, 137)
		topics := log.Topics()
		for _, want := range []string{runtime.TaskPausedEventTopic, runtime.TaskResumedEventTopic} {
			if !slices.Contains(topics, want) {
				t.Errorf("no event %s in %v", want, topics)
			}
		}
	})
}

// raises are ways to lift one's own limit that root of a container may try. $1 is the file.
var raises = []string{
	`echo max >/sys/fs/cgroup/$1`,
	`unshare --cgroup sh -c 'echo max >/sys/fs/cgroup/$0' $1`,
	// Whoever may make a user namespace has all capabilities in it.
	`unshare --user --map-root-user --cgroup sh -c 'echo max >/sys/fs/cgroup/$0' $1`,
	`unshare --user --map-root-user --cgroup --mount sh -c 'mount -t cgroup2 none /mnt && echo max >/mnt/$0' $1`,
	`mount -t cgroup2 none /mnt && echo max >/mnt/$1`,
	`mkdir -p /sys/fs/cgroup/out; unshare --cgroup sh -c 'echo $$ >/sys/fs/cgroup/out/cgroup.procs; echo $$ >/sys/fs/cgroup/../../cgroup.procs; echo max >/sys/fs/cgroup/../$0' $1`,
}

func holds(t *testing.T, v variant, opts ...taskOption) {
	const limit = 128 << 20
	run, log := watch(t, v.image, v.with(append(opts, withMemory(limit), withSpec(oci.WithPidsLimit(160)),
		withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+"mkdir -p /sys/fs/cgroup/a/b/c; "+idle))...)...)
	run.WaitOutput("ready", runLimit)
	run.booted()
	for _, raise := range raises {
		for _, file := range []string{"memory.max", "pids.max"} {
			// Some are denied, depending on the host's mount of cgroup2. Others work, on what limits nothing.
			run.ExecAs(byOperator, "sh", "-c", raise, "sh", file)
		}
	}
	if got := run.limit(memoryMax); got != fmt.Sprint(limit) {
		t.Errorf("memory is limited to %s", got)
	}
	if got := run.limit(pidsMax); got != "160" {
		t.Errorf("pids are limited to %s", got)
	}
	if got := run.ExecAs(byOperator, "tail", "-n", "1", "/dev/zero"); got.Code != 137 {
		t.Errorf("more memory than the limit: %+v", got)
	}
	log.Wait(runtime.TaskOOMEventTopic, runLimit)
	run.Kill(syscall.SIGTERM)
	run.outcome(log, 5)
	if left := run.cgroupsOf(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The limits hold against root inside, which may write to all of its cgroups.
func TestCgroupHolds(t *testing.T) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		holds(t, systemdBookworm)
	})
	t.Run("CAP_SYS_ADMIN", func(t *testing.T) {
		t.Parallel()
		holds(t, systemdBookworm, withSpec(oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})))
	})
}

// They need nothing from how the host has mounted cgroup2. Not parallel, as this changes the mount.
func TestCgroupHoldsWithoutDelegation(t *testing.T) {
	if os.Getenv("RICH_TEST_OWN_HOST") == "" {
		t.Skip("changes a mount of the host, which is for a host of the tests' own: make test-vm")
	}
	remount := func(options string) {
		t.Helper()
		if err := unix.Mount("none", cgroupRoot, "cgroup2", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, options); err != nil {
			t.Fatal(err)
		}
	}
	remount("memory_recursiveprot")
	defer remount("nsdelegate,memory_recursiveprot")
	holds(t, systemdBookworm)
}

// systemd in the container limits its services.
func TestCgroupUnitLimit(t *testing.T) {
	if !unified() {
		t.Skip("on a host with cgroup v1 controllers the container's systemd has none: make test-vm")
	}
	t.Parallel()
	forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withArgs("sh", "-c", ready+"exec sleep infinity"))...)
		run.WaitOutput("ready", runLimit)
		// Stays wherever it is put; from there it must not be in systemd's way.
		if got := run.ExecAs(byOperator, "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"); got.Code != 0 {
			run.fatal("exec: %+v", got)
		}
		if state := run.booted(); state != "running" {
			t.Errorf("systemd is %s", state)
		}
		got := run.Exec("systemd-run", "--unit=hog", "--wait", "-p", "MemoryMax=16M", "-p", "TasksMax=20", "-p", "CPUQuota=50%", "tail", "-n", "1", "/dev/zero")
		if got.Code == 0 || !strings.Contains(got.Stderr, "oom-kill") {
			t.Errorf("a service beyond its limit: %+v", got)
		}
		run.running()
		enabled := strings.Fields(readFile(t, run.ownCgroup("cgroup.subtree_control")))
		for _, want := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(enabled, want) {
				t.Errorf("systemd's services have %v", enabled)
			}
		}
		if got := readFile(t, run.ownCgroup("cgroup.procs")); got != "" {
			t.Errorf("processes are left at the top: %q", got)
		}
		run.stop()
	})
}

func TestB14Exec(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		dir := t.TempDir()
		if err := unix.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
			t.Fatal(err)
		}
		run, log := watch(t, v.image, v.with(withMemory(160<<20), withSpec(oci.WithCPUCFS(150000, 100000)), withBind(dir, "/mnt", "rbind", "rw"),
			withArgs("sh", "-c", "trap 'echo stopping; read go </mnt/go; exit 5' TERM; "+ready+idle))...)
		// While the init boots.
		for range 10 {
			if got := run.Exec("true"); got.Code != 0 {
				t.Errorf("exec: %+v", got)
			}
		}
		run.WaitOutput("ready", runLimit)
		if state := run.booted(); state != "running" {
			t.Errorf("systemd is %s", state)
		}
		many := 50
		if v == systemdSid {
			many = 5
		}
		for range many {
			if got := run.Exec("true"); got.Code != 0 {
				t.Errorf("exec: %+v", got)
			}
		}
		// The namespaced view of systemd's own cgroup.
		if got := run.Exec("cat", "/proc/self/cgroup"); unified() && got.Stdout != "0::/init.scope\n" {
			t.Errorf("an exec is in %q", got.Stdout)
		}
		if got := run.Exec("tail", "-n", "1", "/dev/zero"); got.Code != 137 {
			t.Errorf("an exec beyond the container's limit: %+v", got)
		}
		log.Wait(runtime.TaskOOMEventTopic, runLimit)

		run.Kill(syscall.SIGTERM)
		run.WaitOutput("stopping", runLimit)
		if got := run.Exec("true"); got.Code != 0 {
			t.Errorf("exec after the stop began: %+v", got)
		}
		openFifo(t, run, "go")
		eventually(t, runLimit, "the end", func() error {
			got, err := run.TryExec(func(*specs.Process) {}, "true")
			switch {
			case err == nil && (got.Code == 0 || got.Code > 128):
				return errors.New("exec still works")
			case err == nil:
				t.Errorf("exec while the init halts: %+v", got)
			case !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err):
				t.Errorf("exec while the init halts: %v", err)
			}
			return nil
		})
		run.outcome(log, 5)
	})
}

// The host's systemd makes the cgroup.
func TestCgroupSystemdDriver(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("the host's init is not systemd: make test-vm")
	}
	t.Parallel()
	forEach(t, []variant{plain, dumbInit, systemdBookworm}, func(t *testing.T, v variant) {
		id := newID(t)
		run := startTask(t, v.image, v.with(withID(id), withMemory(128<<20), withSpec(oci.WithCgroup("system.slice:rich:"+id)),
			withRuntimeOptions(&options.Options{SystemdCgroup: true}), withArgs("sh", "-c", ready+"exec sleep infinity"))...)
		run.WaitOutput("ready", runLimit)
		scope := "/system.slice/rich-" + id + ".scope"
		if got := readFile(t, memoryMax.at(scope)); got != fmt.Sprint(128<<20) {
			t.Errorf("memory is limited to %s", got)
		}
		if v.init == "systemd" {
			if state := run.booted(); state != "running" {
				t.Errorf("systemd is %s", state)
			}
			run.ExecAs(byOperator, "sh", "-c", raises[2], "sh", "memory.max")
		}
		memory := int64(144 << 20)
		if err := run.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}}); err != nil {
			run.fatal("update: %v", err)
		}
		if got := readFile(t, memoryMax.at(scope)); got != fmt.Sprint(memory) {
			t.Errorf("memory is limited to %s, want %d", got, memory)
		}
		run.metrics()
		if got := run.ExecAs(byOperator, "tail", "-n", "1", "/dev/zero"); got.Code != 137 {
			t.Errorf("more memory than the limit: %+v", got)
		}
		run.Kill(syscall.SIGKILL)
		run.Wait(runLimit)
		run.Delete()
		if _, err := os.Stat(filepath.Join(cgroup2Mount(), scope)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the scope is left: %v", err)
		}
	})
}

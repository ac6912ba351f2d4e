package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The field cases about what an init brings along.

// The command has its time though a service beside it does not stop, and SIGKILL ends all at once.
func TestB12StuckService(t *testing.T) {
	compare := snapshotHost(t)
	dir := t.TempDir()
	run, log := watch(t, imageBookworm, withInit("systemd"), withRich("halt-timeout", "10m"), withBind(dir, "/data", "rbind", "rw"),
		withUnit("stuck.service", "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 77777; done'\n"),
		withArgs("sh", "-c", "trap 'sleep 2; echo bye >/data/bye; exit 5' TERM; "+ready+idle))
	run.WaitOutput("ready", runLimit)
	run.booted()
	run.Kill(syscall.SIGTERM)
	eventually(t, runLimit, "the command's last words", func() error {
		got, err := os.ReadFile(filepath.Join(dir, "bye"))
		if err == nil && string(got) != "bye\n" {
			err = fmt.Errorf("they are %q", got)
		}
		return err
	})
	// The service has not stopped, nor was it killed.
	run.waitCommandLine("sleep", "77777")
	run.running()
	run.waitShimLog("command ended", "status=5")
	run.Kill(syscall.SIGKILL)
	run.outcome(log, 5)
	compare()
}

// What the container may fill is bounded: /run, and the journal in it.
func TestB16Run(t *testing.T) {
	t.Parallel()
	const limit = 128 << 20
	size := func(run *task) int64 {
		t.Helper()
		out := run.Exec("stat", "--file-system", "--format", "%b %S", "/run").Stdout
		var blocks, each int64
		if _, err := fmt.Sscan(out, &blocks, &each); err != nil {
			run.fatal("%q: %v", out, err)
		}
		return blocks * each
	}
	for _, c := range []struct {
		name string
		opts []taskOption
		want int64
	}{
		{"default", []taskOption{withoutRunMount()}, 256 << 20},
		{"half of the memory limit", []taskOption{withoutRunMount(), withSpec(oci.WithMemoryLimit(limit))}, limit / 2},
		{"option", []taskOption{withoutRunMount(), withRich("run-size", "16m")}, 16 << 20},
		{"the engine's own", []taskOption{withRich("run-size", "16m")}, 64 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, imageBookworm, append(c.opts, withInit("systemd"), withArgs("sh", "-c", ready+idle))...)
			run.WaitOutput("ready", runLimit)
			if got := size(run); got != c.want {
				t.Errorf("/run has %d bytes, want %d", got, c.want)
			}
			if c.want > 64<<20 {
				run.stop()
				return
			}
			// The journal leaves room for others, however much is logged.
			const flood = "head -c 40000000 /dev/urandom | base64"
			run.Exec("systemd-run", "--wait", "--quiet", "--property=LogRateLimitIntervalSec=0", "sh", "-c", flood)
			used := strings.Fields(run.Exec("du", "--summarize", "--bytes", "/run/log/journal").Stdout)
			if n, err := strconv.ParseInt(used[0], 10, 64); err != nil || n == 0 || n > c.want/4 {
				t.Errorf("the journal has %v bytes of %d, %v", used, c.want, err)
			}
			if got := run.Exec("sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/run/room", c.want/4)); got.Code != 0 {
				t.Errorf("no room beside the journal: %+v", got)
			}
			// And too much is an error of who writes it.
			got := run.Exec("sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/run/full", c.want))
			if got.Code == 0 || !strings.Contains(got.Stderr, "No space left on device") {
				t.Errorf("/run takes more than its size: %+v", got)
			}
			run.Exec("rm", "/run/full")
			run.running()
			run.stop()
		})
	}
}

// Nothing that never comes in a container holds the command up: systemd would wait 90 s, longer than the test.
func TestB19Boot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []variant{systemdBookworm, systemdSid} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, v.image, withInit("systemd"), withoutRunMount(),
				withBind(filepath.Join(dir, "hosts"), "/etc/hosts", "rbind", "rprivate", "rw"),
				withBind(filepath.Join(dir, "hostname"), "/etc/hostname", "rbind", "rprivate", "rw"),
				withBind(filepath.Join(dir, "resolv.conf"), "/etc/resolv.conf", "rbind", "rprivate", "rw"),
				withFile("/etc/fstab", "/dev/vdz1 / ext4 defaults 0 1\n/dev/vdz2 none swap sw 0 0\nLABEL=data /srv ext4 defaults 0 2\n", 0o644),
				withFile("/etc/modules-load.d/none.conf", "nosuchmodule\n", 0o644),
				withFile("/etc/systemd/system/dev-vdz3.swap", "[Unit]\n[Swap]\nWhat=/dev/vdz3\n", 0o644), withWants("swap.target", "dev-vdz3.swap"),
				withFile("/etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/vdz4\nWhere=/srv\n", 0o644), withWants("local-fs.target", "srv.mount"),
				withUnit("online.service", "[Unit]\nWants=network-online.target\nAfter=network-online.target\n[Service]\nExecStart=/bin/sleep 77777\n"),
				withArgs("sh", "-c", ready+idle))
			run.WaitOutput("ready", runLimit)
			run.stop()
		})
	}
}

// sandboxed has options that Debian's own services use, and tells whether they are in force.
const sandboxed = `[Service]
Type=oneshot
RemainAfterExit=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
PrivateDevices=yes
NoNewPrivileges=yes
RestrictSUIDSGID=yes
SystemCallFilter=@system-service
RuntimeDirectory=boxed
ExecStart=/bin/sh -c 'if touch /usr/boxed; then echo open; else echo shut; fi >/run/boxed/usr'
`

// A service with sandbox options runs with what capabilities the container has; without CAP_SYS_ADMIN it sees the
// whole container. Nothing else is the worse for it.
func TestB20Sandbox(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		caps []string
		usr  string
	}{
		{"default", nil, "open\n"},
		{"CAP_SYS_ADMIN", []string{"CAP_SYS_ADMIN"}, "shut\n"},
	} {
		for _, v := range []variant{systemdBookworm, systemdSid} {
			t.Run(c.name+" "+v.name, func(t *testing.T) {
				t.Parallel()
				run := startTask(t, v.image, withInit("systemd"), withSpec(oci.WithAddedCapabilities(c.caps), seccomp.WithDefaultProfile()),
					withUnit("boxed.service", sandboxed), withArgs("sh", "-c", ready+idle))
				run.WaitOutput("ready", runLimit)
				run.booted()
				if got := run.Exec("systemctl", "is-active", "boxed", "rich-app"); got.Stdout != "active\nactive\n" {
					t.Errorf("the service and the command are %+v\n%s", got, run.Exec("systemctl", "status", "--no-pager", "boxed").Stdout)
				}
				if got := run.Exec("cat", "/run/boxed/usr"); got.Stdout != c.usr {
					t.Errorf("/usr is %+v for it, want %q", got, c.usr)
				}
				run.running()
				run.stop()
			})
		}
	}
}

// A guest that was made for a machine is idle when it has nothing to do, and finds its files as they were.
func TestB35Idle(t *testing.T) {
	t.Parallel()
	run := startTask(t, imageInitAlpine, withArgs("sh", "-c", "trap 'exit 5' TERM; echo ready; exec sleep 77777"))
	run.WaitOutput("ready", initLimit)
	pids := func() (pids []uint32, ticks int, err error) {
		ctx, cancel := private.within(callLimit)
		defer cancel()
		infos, err := run.Task.Pids(ctx)
		for _, p := range infos {
			used, gone := cpuTicks(p.Pid)
			pids, ticks, err = append(pids, p.Pid), ticks+used, errors.Join(err, gone)
		}
		slices.Sort(pids)
		return pids, ticks, err
	}
	const mostTicks = 5 // of 500
	eventually(t, initLimit, "an idle container", func() error {
		before, ticks, err := pids()
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
		after, now, err := pids()
		if err != nil {
			return err
		}
		if !slices.Equal(before, after) || now-ticks > mostTicks {
			return fmt.Errorf("processes %v, then %v; %d ticks", before, after, now-ticks)
		}
		return nil
	})
	run.waitFile("/etc/inittab", "::once:/run/rich/launch app", runLimit)
	run.Kill(syscall.SIGTERM)
	run.Wait(initLimit)
	run.endTask()
	for _, line := range run.written() {
		if strings.HasPrefix(line, "/etc/inittab ") || strings.HasPrefix(line, "/etc/init.d") || strings.HasPrefix(line, "/etc/runlevels") {
			t.Errorf("changed: %s", line)
		}
	}
}

// TestDgramQueue: journald drops messages for syslogd beyond the 10 that the kernel queues; a machine's systemd raises that.
func TestDgramQueue(t *testing.T) {
	t.Parallel()
	const file = "/proc/sys/net/unix/max_dgram_qlen"
	host, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	network := func(queue int) taskOption {
		path := newNamespace(t, "net", fmt.Sprintf("echo %d >%s", queue, file))
		return withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: path}))
	}
	for name, c := range map[string]struct {
		variant variant
		opt     taskOption
		want    string
	}{
		"systemd":   {systemdBookworm, func(*taskSettings) {}, "512\n"},
		"dumb-init": {dumbInit, func(*taskSettings) {}, "10\n"},
		"asked for": {systemdBookworm, withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
			s.Linux.Sysctl = map[string]string{"net.unix.max_dgram_qlen": "77"}
			return nil
		}), "77\n"},
		"a pod's":           {systemdBookworm, network(20), "512\n"},
		"a pod's with more": {systemdBookworm, network(1000), "1000\n"},
		"the host's":        {systemdBookworm, withSpec(oci.WithHostNamespace(specs.NetworkNamespace)), string(host)},
		"the host's by its path": {systemdBookworm, withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{
			Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", os.Getpid()),
		})), string(host)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := runTask(t, c.variant.image, runLimit, c.variant.with(c.opt, withArgs("cat", file))...); got.Code != 0 || got.Stdout != c.want {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(host) {
		t.Errorf("the host's was %q, is %q, %v", host, now, err)
	}
}

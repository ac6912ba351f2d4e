package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// usernsRoot is who root of a container with withUserNamespace is on the host.
const usernsRoot = 200000

// withUserNamespace maps 65536 ids of the container from usernsRoot on.
func withUserNamespace() taskOption {
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: usernsRoot, Size: 65536}}
	spec := withSpec(oci.WithUserNamespace(mapping, mapping))
	return func(s *taskSettings) {
		spec(s)
		s.snapshot = append(s.snapshot, containerd.WithRemapperLabels(0, usernsRoot, 0, usernsRoot, 65536))
	}
}

// testUserNamespace runs a command that is not root where nobody is root on the host.
func (v matrixInit) testUserNamespace(t *testing.T, m *matrix) {
	const user = 1234
	dir := t.TempDir()
	if err := os.Chown(dir, usernsRoot+user, usernsRoot); err != nil {
		t.Fatal(err)
	}
	run := startTask(t, v.image, withInit(v.init), withUserNamespace(), withUser(user, user), withBind(dir, "/data", "rbind", "rw"),
		withArgs("sh", "-c", "trap 'echo bye; exit 5' TERM; id -u; cat /proc/self/uid_map; touch /data/made; echo err >&2; "+ready+idle))
	run.WaitOutput("ready", initLimit)
	v.isPid1(run)
	pid1 := uint32(usernsRoot)
	if v.program == "dumb-init" {
		pid1 += user
	}
	if owner := owner(t, fmt.Sprintf("/proc/%d", run.Task.Pid())); owner != pid1 {
		t.Errorf("pid 1 is of user %d on the host", owner)
	}
	if owner := owner(t, filepath.Join(dir, "made")); owner != usernsRoot+user {
		t.Errorf("the command is user %d on the host", owner)
	}
	if v.program == "systemd" {
		if state := run.booted(); state != "running" {
			t.Errorf("systemd is %q: %s", state, run.ExecAs(asRoot, "systemctl", "--failed", "--no-legend").Stdout)
		}
	}
	if got := run.ExecAs(asRoot, "sh", "-c", "id -u; exit 3"); got.Stdout != "0\n" || got.Code != 3 {
		t.Errorf("exec: %+v", got)
	}
	run.Kill(syscall.SIGTERM)
	v.ends(run, 5)
	want := fmt.Sprintf("%d\n%10d %10d %10d\nready\nbye\n", user, 0, usernsRoot, 65536)
	if out := run.Stdout.String(); out != want || !strings.HasPrefix(run.Stderr.String(), "err\n") {
		t.Fatalf("stdout %q, want %q; stderr %q", out, want, run.Stderr)
	}
	if !t.Failed() {
		m.set(v.name, cellUserns, "yes")
	}
}

// owner is the user a file belongs to.
func owner(t testing.TB, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

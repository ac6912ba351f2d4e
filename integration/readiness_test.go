package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// initState is what the shim knows of the init.
func (r *task) initState() (state struct{ State, Text string }) {
	r.t.Helper()
	data, err := os.ReadFile(r.bundle("rich", "init.json"))
	if err != nil {
		r.fatal("%v", err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		r.fatal("%v: %q", err, data)
	}
	return state
}

func (r *task) waitInitState(want string) {
	r.t.Helper()
	eventually(r.t, initLimit, "the init's state", func() error {
		if got := r.initState(); got.State != want {
			return fmt.Errorf("it is %+v, want %q", got, want)
		}
		return nil
	})
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	for _, v := range matrixInits {
		if v.program != "systemd" {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			t.Run("running", func(t *testing.T) {
				t.Parallel()
				// The end of the boot waits for the gate.
				run := startTask(t, v.image, withInit(v.init), withArgs("sh", "-c", ready+idle),
					withUnit("gate.service", "[Unit]\nBefore=multi-user.target\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e /run/gate ]; do sleep 0.1; done'\n"))
				run.WaitOutput("ready", initLimit)
				if got := run.initState(); got.State != "starting" {
					t.Errorf("while it boots: %+v", got)
				}
				run.Exec("touch", "/run/gate")
				run.waitInitState("running")
				// Who can lie about the init can do no more than that.
				for _, message := range []string{"STATUS=\x1b[2J" + strings.Repeat("long ", 1000), "READY=1", "=\n\n=", "MAINPID=1"} {
					run.ExecAs(func(p *specs.Process) { asRoot(p); p.Env = append(p.Env, "NOTIFY_SOCKET=/run/rich/notify.sock") }, "systemd-notify", message)
				}
				if got := run.initState(); got.State != "running" || strings.ContainsRune(got.Text, '\x1b') || len(got.Text) > 200 {
					t.Errorf("after messages of a process: %+v", got)
				}
				run.ExecAs(asRoot, "systemctl", "poweroff")
				run.Wait(initLimit)
				run.waitInitState("stopping")
				run.Delete()
			})
			t.Run("degraded", func(t *testing.T) {
				t.Parallel()
				run := startTask(t, v.image, withInit(v.init), withArgs("sh", "-c", ready+idle),
					withUnit("bad.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"))
				run.WaitOutput("ready", initLimit)
				run.waitInitState("degraded")
				run.stop()
			})
		})
	}
}

// A container is the same machine at its next start, and no other container is.
func TestIdentity(t *testing.T) {
	t.Parallel()
	const show = "cat /etc/machine-id; tr '\\0' '\\n' </proc/1/environ | grep ^container_uuid=; cat /run/host/container-uuid /run/host/container-manager; "
	identity := func(r *task) string {
		r.WaitOutput("ready", runLimit)
		return strings.TrimSuffix(r.Stdout.String(), "ready\n")
	}
	run := startTask(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", show+ready+idle))
	first := identity(run)
	run.Kill(15)
	run.Wait(runLimit)
	run.endTask()
	run.again(asRoot)
	if second := identity(run); second != first {
		t.Errorf("first %q, then %q", first, second)
	}
	other := startTask(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", show+ready+idle))
	lines := strings.Split(first, "\n")
	if len(lines) != 5 || len(lines[0]) != 32 || lines[1] != "container_uuid="+lines[0] || strings.ReplaceAll(lines[2], "-", "") != lines[0] || lines[3] != "rich" {
		t.Errorf("identity %q", lines)
	}
	if id := identity(other); strings.HasPrefix(id, lines[0]) {
		t.Error("two containers have the same id")
	}
	if got := other.ExecAs(asRoot, "touch", "/run/host/x"); got.Code == 0 {
		t.Error("/run/host can be written")
	}
	run.stop()
	other.stop()
}

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// peopleEnv is what a container has and only the command would see without our help.
var peopleEnv = []string{
	"JAVA_HOME=/opt/jdk",
	"PATH=/opt/jdk/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"MSG=it's $5 \"x\" `touch /pwned` $(touch /pwned) \\ %n ; touch /pwned\nsecond line ",
	"not-a-name=1",
}

// shownEnv is what printEnv prints of it.
const shownEnv = "/opt/jdk\n/opt/jdk/bin:/usr/sbin:/usr/bin:/sbin:/bin\nit's $5 \"x\" `touch /pwned` $(touch /pwned) \\ %n ; touch /pwned\nsecond line |"

const printEnv = `printf '%s\n%s\n%s|' "$JAVA_HOME" "$PATH" "$MSG"`

// bareEnv is for a process that knows nothing of the container's environment, as what sshd or cron start.
func bareEnv(uid uint32) func(*specs.Process) {
	return func(p *specs.Process) {
		p.Env, p.User = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, specs.User{UID: uid, GID: uid}
	}
}

// The environment for login shells (b), cron jobs (c) and services.
func TestB5EnvironmentOfPeople(t *testing.T) {
	t.Parallel()
	for _, v := range matrixInits {
		if v.poweroff == nil {
			continue // no services, no logins
		}
		for _, user := range []uint32{0, 1234} {
			t.Run(fmt.Sprintf("%s/user %d", v.name, user), func(t *testing.T) {
				t.Parallel()
				run := startTask(t, v.image, withInit(v.init), withEnv(peopleEnv...), withUser(user, user), withArgs("sh", "-c", ready+idle))
				run.WaitOutput("ready", initLimit)

				if run.ExecAs(asRoot, "test", "-d", "/etc/profile.d").Code == 0 {
					for _, who := range []uint32{0, user} {
						if got := run.ExecAs(bareEnv(who), "sh", "-lc", printEnv); got.Stdout != shownEnv || got.Stderr != "" {
							t.Errorf("a login shell of user %d: %+v, want %q", who, got, shownEnv)
						}
					}
					if got := run.ExecAs(bareEnv(4321), "sh", "-lc", printEnv); strings.Contains(got.Stdout, "jdk") || got.Stderr != "" {
						t.Errorf("another user's login shell: %+v", got)
					}
				}
				for _, who := range []uint32{0, user} {
					got := run.ExecAs(bareEnv(who), "/run/rich/launch", "env", "--", "sh", "-c", printEnv)
					if got.Stdout != shownEnv || got.Code != 0 {
						t.Errorf("launch env of user %d: %+v", who, got)
					}
					// No shell in between: it would drop what it cannot have.
					if got := run.ExecAs(bareEnv(who), "/run/rich/launch", "env", "env"); !strings.Contains(got.Stdout, "\nnot-a-name=1\n") {
						t.Errorf("launch env of user %d: %+v", who, got)
					}
				}
				if got := run.ExecAs(bareEnv(4321), "/run/rich/launch", "env", "--", "env"); got.Code == 0 || got.Stdout != "" || !strings.Contains(got.Stderr, "permission denied") {
					t.Errorf("launch env of another user: %+v", got)
				}
				if got := run.ExecAs(bareEnv(4321), "cat", "/run/rich/env.sh", "/run/rich/environ"); got.Stdout != "" {
					t.Errorf("another user reads %q", got.Stdout)
				}
				if got := run.ExecAs(asRoot, "test", "-e", "/pwned"); got.Code != 1 {
					t.Error("a value was run as a command")
				}
				run.Kill(syscall.SIGKILL)
				run.Wait(initLimit)
				run.endTask()
				if left := ours(run.written()); len(left) > 0 {
					t.Errorf("left in the rootfs: %q", left)
				}
			})
		}
	}
	t.Run("jobs", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, withInit("systemd"), withEnv(peopleEnv...), withArgs("sh", "-c", ready+idle),
			withFile("/print", "#!/bin/sh\n"+printEnv+"\n", 0o755),
			withFile("/etc/cron.d/print", "* * * * * root /run/rich/launch env -- /print >/run/cron.part; mv /run/cron.part /run/cron\n", 0o644),
			withUnit("print.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c '/run/rich/launch env -- /print >/run/service'\n"))
		run.WaitOutput("ready", runLimit)
		run.booted()
		if got := run.ExecAs(bareEnv(0), "su", "-", "-c", "/print"); got.Stdout != shownEnv {
			t.Errorf("su - : %+v", got)
		}
		if got := run.ExecAs(bareEnv(0), "su", "-", "nobody", "-s", "/bin/sh", "-c", "/print"); strings.Contains(got.Stdout, "jdk") {
			t.Errorf("su - nobody: %+v", got)
		}
		if got := run.ExecAs(bareEnv(0), "sh", "-c", "systemctl start print && cat /run/service"); got.Stdout != shownEnv {
			t.Errorf("the service: %+v", got)
		}
		eventually(t, initLimit, "the cron job", func() error {
			if got := run.ExecAs(bareEnv(0), "cat", "/run/cron"); got.Stdout != shownEnv {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		run.stop()
	})
	t.Run("not wanted", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, withInit("systemd"), withRich("login-env", "no"), withEnv(peopleEnv...), withArgs("sh", "-c", ready+idle))
		run.WaitOutput("ready", runLimit)
		if got := run.ExecAs(bareEnv(0), "sh", "-lc", printEnv); strings.Contains(got.Stdout, "jdk") {
			t.Errorf("a login shell: %+v", got)
		}
		run.stop()
	})
}

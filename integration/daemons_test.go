package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Daemons that people run beside their command: cron, syslog, sshd, and what they install later.

// cronLimit bounds the wait for a job of every minute.
const cronLimit = 3 * time.Minute

// waitFile waits until a file in the container has a text.
func (r *task) waitFile(path, text string, limit time.Duration) {
	r.t.Helper()
	err := poll(limit, func() error {
		if got := r.ExecAs(asRoot, "cat", path); !strings.Contains(got.Stdout, text) {
			return fmt.Errorf("%s has no %q: %+v", path, text, got)
		}
		return nil
	})
	if err != nil {
		r.fatal("%v", err)
	}
}

// A job of cron runs, and what it says is in the syslog.
func TestServicesCron(t *testing.T) {
	t.Parallel()
	run := startTask(t, imageBookworm, withoutWants("cron.service"), withoutWants("rsyslog.service"), withRich("services", "cron rsyslog"),
		withFile("/etc/cron.d/job", "* * * * * root echo the job of $(id -un) | logger -t job\n", 0o644), withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	run.waitFile("/var/log/syslog", "job: the job of root", cronLimit)
	run.stop()
}

// The same under the other inits, whose images have no syslog.
func TestServicesCronEverywhere(t *testing.T) {
	t.Parallel()
	enabled := []string{"/etc/rc2.d/S01cron", "/etc/rc3.d/S01cron", "/etc/rc4.d/S01cron", "/etc/rc5.d/S01cron", "/etc/runlevels/default/cron"}
	for name, image := range map[string]string{
		"sysvinit": imageSysvinit, "busybox with OpenRC": imageInitAlpine, "openrc-init": imageInitOpenRC, "runit": imageRunit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disabled := func(s *taskSettings) {
				for _, link := range enabled {
					without(link)(s)
				}
			}
			run := startTask(t, image, disabled, withRich("services", "cron"),
				withFile("/etc/cron.d/job", "* * * * * root echo the job of $(id -un) >/run/job\n", 0o644), withArgs("sh", "-c", ready+idle))
			run.WaitOutput("ready", initLimit)
			run.waitFile("/run/job", "the job of root", cronLimit)
			run.stop()
		})
	}
}

// The first thing that the command does is to log a line.
func TestServicesSyslog(t *testing.T) {
	t.Parallel()
	for _, user := range []uint32{0, 1234} {
		run := startTask(t, imageBookworm, withInit("systemd"), withoutWants("rsyslog.service"), withRich("services", "rsyslog"), withUser(user, user),
			withArgs("sh", "-c", "logger -t early the first line; "+ready+idle))
		run.WaitOutput("ready", runLimit)
		run.waitFile("/var/log/syslog", "early: the first line", runLimit)
		run.stop()
	}
}

// A login with a key, from the container's network.
func TestServicesSSH(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	noKeys := func(s *taskSettings) {
		for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
			without("/etc/ssh/ssh_host_" + kind + "_key")(s)
		}
	}
	run := startTask(t, imageBookworm, withoutWants("ssh.service"), noKeys, withRich("services", "ssh"),
		withFile("/root/.ssh/authorized_keys", string(public), 0o600),
		withFile("/etc/systemd/system/ssh.service.d/keys.conf", "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n", 0o644),
		withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	login := exec.CommandContext(ctx, "nsenter", "--net", "--target", fmt.Sprint(run.Task.Pid()), "ssh", "-F", "none", "-i", key, "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile="+filepath.Join(dir, "known"), "root@127.0.0.1", "id -u; cat /proc/1/comm; systemctl is-active rich-app")
	var said strings.Builder
	login.Stderr = &said
	out, err := login.Output()
	if want := "0\nsystemd\nactive\n"; err != nil || string(out) != want {
		run.fatal("the login gave %q, %v, want %q\n%s\n%+v", out, err, want, said.String(), run.Exec("journalctl", "-u", "ssh", "--no-pager"))
	}
	run.stop()
}

// debPostinst is what debhelper makes for a package with a service.
const debPostinst = `#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if [ -d /run/systemd/system ]; then
	deb-systemd-helper enable side.service >/dev/null
	systemctl --system daemon-reload
	deb-systemd-invoke start side.service
else
	update-rc.d side defaults >/dev/null
	invoke-rc.d side start
fi
`

// buildDeb makes a package with a service named side, that runs sleep.
func buildDeb(t *testing.T, dir string) {
	t.Helper()
	root := filepath.Join(dir, "root")
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"DEBIAN/control":                  {"Package: side\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a service\n", 0o644},
		"DEBIAN/postinst":                 {debPostinst, 0o755},
		"lib/systemd/system/side.service": {"[Service]\nExecStart=/bin/sleep 77777\n[Install]\nWantedBy=multi-user.target\n", 0o644},
		"etc/init.d/side":                 {"#!/bin/sh\n" + lsbBody[:strings.Index(lsbBody, "exec")] + "[ $1 != start ] || sleep 77777 </dev/null >/dev/null 2>&1 &\n", 0o755},
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", root, filepath.Join(dir, "side.deb")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A package that is installed in the running container starts its service. An image's policy-rc.d, which many images
// have, is obeyed.
func TestServicesInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	buildDeb(t, dir)
	service := []string{"/bin/sleep\x0077777\x00", "sleep\x0077777\x00"}
	for _, v := range []struct {
		name, image string
		opts        []taskOption
		started     bool
	}{
		{"systemd 252", imageBookworm, nil, true},
		{"systemd sid", imageSid, nil, true},
		{"sysvinit", imageSysvinit, nil, true},
		{"runit", imageRunit, nil, true},
		{"policy-rc.d", imageBookworm, []taskOption{withFile("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)}, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			run := startTask(t, v.image, append(v.opts, withBind(dir, "/data"), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
			run.WaitOutput("ready", initLimit)
			if got := run.ExecAs(asRoot, "dpkg", "-i", "/data/side.deb"); got.Code != 0 {
				run.fatal("dpkg: %+v", got)
			}
			runs := func() error {
				lines := run.commandLines()
				for _, line := range lines {
					if line == service[0] || line == service[1] {
						return nil
					}
				}
				return fmt.Errorf("it does not run: %q", lines)
			}
			if v.started {
				eventually(t, initLimit, "the service", runs)
			} else {
				if runs() == nil {
					t.Error("the policy was not obeyed")
				}
				run.Exec("systemctl", "start", "side")
				eventually(t, initLimit, "the service", runs)
			}
			run.stop()
		})
	}
}

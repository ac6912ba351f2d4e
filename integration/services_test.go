package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Services of the image under each init, by the options services and mask.

// sideInit is an init with a service in its own way.
type sideInit struct {
	name, image string
	// service gives the image a service that is not enabled; its script is run with "start" and "stop", and has
	// started when it has ended the start.
	service func(name, script string) taskOption
}

// initScript is a service as an init script.
func initScript(interpreter, body string) func(name, script string) taskOption {
	return func(name, script string) taskOption {
		return func(s *taskSettings) {
			withFile("/usr/lib/"+name, script, 0o755)(s)
			withFile("/etc/init.d/"+name, interpreter+"\n"+strings.ReplaceAll(body, "SCRIPT", "/usr/lib/"+name), 0o755)(s)
		}
	}
}

const (
	lsbBody    = "### BEGIN INIT INFO\n# Provides: side\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\nexec SCRIPT \"$1\"\n"
	openrcBody = "start() { SCRIPT start; }\nstop() { SCRIPT stop; }\n"
)

func unitService(name, script string) taskOption {
	return func(s *taskSettings) {
		withFile("/usr/lib/"+name, script, 0o755)(s)
		withFile("/usr/lib/systemd/system/"+name+".service",
			fmt.Sprintf("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/%s start\nExecStop=/usr/lib/%s stop\n", name, name), 0o644)(s)
	}
}

// runitService is supervised: its start is over when its check says so.
func runitService(name, script string) taskOption {
	return func(s *taskSettings) {
		withFile("/usr/lib/"+name, script, 0o755)(s)
		withFile("/etc/sv/"+name+"/run", fmt.Sprintf("#!/bin/sh\ntrap '/usr/lib/%[1]s stop; exit 0' TERM\n/usr/lib/%[1]s start && : >/run/%[1]s.up\nwhile :; do sleep 0.1; done\n", name), 0o755)(s)
		withFile("/etc/sv/"+name+"/check", "#!/bin/sh\ntest -e /run/"+name+".up\n", 0o755)(s)
	}
}

var sideInits = []sideInit{
	{"systemd 252", imageBookworm, unitService},
	{"systemd sid", imageSid, unitService},
	{"systemd 252 with an init script", imageBookworm, initScript("#!/bin/sh", lsbBody)},
	{"sysvinit", imageSysvinit, initScript("#!/bin/sh", lsbBody)},
	{"busybox", imageInitBusybox, initScript("#!/bin/sh", lsbBody)},
	{"busybox with OpenRC", imageInitAlpine, initScript("#!/sbin/openrc-run", openrcBody)},
	{"openrc-init", imageInitOpenRC, initScript("#!/sbin/openrc-run", openrcBody)},
	{"runit", imageRunit, runitService},
	{"runit with an init script", imageRunit, initScript("#!/bin/sh", lsbBody)},
}

func forEachSide(t *testing.T, check func(t *testing.T, v sideInit)) {
	for _, v := range sideInits {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			check(t, v)
		})
	}
}

// A service that was asked for has started before the command starts, and is stopped after the command has ended. It comes
// again with the next start of the container.
func TestServices(t *testing.T) {
	t.Parallel()
	forEachSide(t, func(t *testing.T, v sideInit) {
		dir := t.TempDir()
		run := startTask(t, v.image, withRich("services", "side"), withBind(dir, "/data", "rbind", "rw"),
			v.service("side", "#!/bin/sh\n[ $1 = stop ] || sleep 2\necho $1 >>/data/log\n"),
			withArgs("sh", "-c", "trap 'sleep 2; echo bye >>/data/log; exit 5' TERM; cat /data/log; echo ready; "+idle))
		for _, out := range []string{"start\nready\n", "start\nbye\nstop\nstart\nready\n"} {
			run.WaitOutput("ready", initLimit)
			if got := run.Stdout.String(); got != out {
				run.fatal("the command wrote %q, want %q", got, out)
			}
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(initLimit); code != 5 {
				run.fatal("exit status %d", code)
			}
			if got, want := strings.Join(readLines(t, filepath.Join(dir, "log")), "\n")+"\n", strings.TrimSuffix(out, "ready\n")+"bye\nstop\n"; got != want {
				run.fatal("the log is %q, want %q", got, want)
			}
			run.endTask()
			if left := ours(run.written()); len(left) > 0 {
				t.Errorf("left in the rootfs: %q", left)
			}
			if !strings.Contains(out, "bye") {
				run.again(asRoot)
			}
		}
	})
}

// A service that fails to start, or never ends to, does not keep the command from it, and takes nothing down.
func TestServicesThatFail(t *testing.T) {
	t.Parallel()
	forEachSide(t, func(t *testing.T, v sideInit) {
		run := startTask(t, v.image, withRich("services", "broken,stuck"),
			v.service("broken", "#!/bin/sh\nexit 1\n"),
			v.service("stuck", "#!/bin/sh\n[ $1 = stop ] || exec sleep 100000\n"),
			withArgs("sh", "-c", "trap 'exit 5' TERM; echo ready; "+idle))
		run.WaitOutput("ready", initLimit+time.Minute) // for which it waits
		if !slices.Contains(run.commandLines(), "sleep\x00100000\x00") {
			t.Errorf("the service that takes long was given up: %q", run.commandLines())
		}
		run.running()
		run.Kill(syscall.SIGTERM)
		if code := run.Wait(initLimit); code != 5 {
			run.fatal("exit status %d", code)
		}
		run.Delete()
	})
}

// A masked service does not run, though the image enables it, and nobody inside can start it. Nothing is written to
// the image for it.
func TestMask(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name, image, service string
		start                []string
	}{
		{"systemd 252", imageBookworm, "cron", []string{"systemctl", "start", "cron"}},
		{"systemd sid", imageSid, "cron", []string{"systemctl", "start", "cron"}},
		{"sysvinit", imageSysvinit, "cron", []string{"/etc/init.d/cron", "start"}},
		{"busybox with OpenRC", imageInitAlpine, "cron", []string{"/etc/init.d/cron", "start"}},
		{"openrc-init", imageInitOpenRC, "cron", []string{"/etc/init.d/cron", "start"}},
		{"runit", imageRunit, "cron", []string{"/etc/init.d/cron", "start"}},
		{"runit service", imageRunit, "default-syslog", []string{"sv", "start", "/etc/service/default-syslog"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			for _, mask := range []string{"", v.service} {
				run := startTask(t, v.image, withRich("mask", mask), withArgs("sh", "-c", "trap 'exit 5' TERM; echo ready; "+idle))
				run.WaitOutput("ready", initLimit)
				if strings.HasPrefix(v.name, "systemd") {
					run.booted()
				}
				run.ExecAs(asRoot, v.start...)
				if mask == "" {
					eventually(t, initLimit, "the service", func() error { return run.serves(v.service) })
				} else if err := run.serves(v.service); err == nil {
					t.Errorf("%s runs: %q", v.service, run.commandLines())
				}
				run.Kill(syscall.SIGTERM)
				run.Wait(initLimit)
				run.endTask()
				if left := ours(run.written()); len(left) > 0 {
					t.Errorf("left in the rootfs: %q", left)
				}
			}
		})
	}
}

// serves tells whether the program of a service runs.
func (r *task) serves(service string) error {
	lines := r.commandLines()
	for _, line := range lines {
		program, _, _ := strings.Cut(line, "\x00")
		if filepath.Base(program) == service || service == "default-syslog" && line == "sleep\x006000\x00" {
			return nil
		}
	}
	return fmt.Errorf("no %s in %q", service, lines)
}

// withoutWants undoes what enables a unit in an image.
func withoutWants(unit string) taskOption {
	return withRootfs(func(root *os.Root) error {
		wants, err := fs.Glob(root.FS(), "etc/systemd/system/*.wants/"+unit)
		if err == nil && len(wants) == 0 {
			err = fmt.Errorf("%s is not enabled", unit)
		}
		for _, name := range wants {
			err = errors.Join(err, root.Remove(name))
		}
		return err
	})
}

// What Debian calls its services, under names that are typed for them.
func TestServicesNames(t *testing.T) {
	t.Parallel()
	disabled := func(s *taskSettings) {
		withoutWants("cron.service")(s)
		withoutWants("rsyslog.service")(s)
		withoutWants("ssh.service")(s)
		without("/etc/systemd/system/sshd.service")(s)
	}
	job := withFile("/etc/systemd/system/job@.service", "[Service]\nExecStart=/bin/sleep %i\n", 0o644)
	run := startTask(t, imageBookworm, disabled, job, withRich("services", "cron.service rsyslog,sshd job@77777"),
		withFile("/etc/ssh/ssh_host_ed25519_key", "", 0o600),
		withArgs("sh", "-c", "trap 'exit 5' TERM; systemctl is-active cron rsyslog job@77777; echo ready; "+idle))
	run.WaitOutput("ready", runLimit)
	if got, want := run.Stdout.String(), "active\nactive\nactive\nready\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := run.Exec("systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", "-p", "LoadState", "ssh"); !strings.Contains(got.Stdout, "LoadState=loaded") {
		t.Errorf("ssh: %+v", got)
	}
	if got := run.Exec("systemctl", "is-enabled", "cron"); got.Stdout != "disabled\n" {
		t.Errorf("the image's own setting: %+v", got)
	}
	run.stop()
}

// A unit of the built-in list of masks runs if it is asked for.
func TestServicesUnmask(t *testing.T) {
	t.Parallel()
	const state = "systemctl show -p LoadState --value systemd-machine-id-commit fstrim.timer getty@tty1"
	for services, want := range map[string]string{
		"":                        "masked\n\nmasked\n\nmasked\n",
		"fstrim.timer,getty@tty1": "masked\n\nloaded\n\nloaded\n",
	} {
		if got := runTask(t, imageBookworm, runLimit, withRich("services", services), withArgs("sh", "-c", state)); got != (result{Stdout: want}) {
			t.Errorf("services %q: %+v, want %q", services, got, want)
		}
	}
}

// A mask goes before a unit in /etc/systemd/system, under each of its names, and before what is installed later.
func TestMaskNames(t *testing.T) {
	t.Parallel()
	run := startTask(t, imageBookworm, withRich("mask", "sshd mine later"),
		withUnit("mine.service", "[Service]\nExecStart=/bin/sleep 77777\n"),
		withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	run.booted()
	const later = "printf '[Service]\\nExecStart=/bin/sleep 77777\\n' >/etc/systemd/system/later.service; systemctl daemon-reload; systemctl start later"
	run.Exec("sh", "-c", later)
	for _, name := range []string{"ssh", "sshd", "mine", "later"} {
		got := run.Exec("systemctl", "show", "-p", "LoadState", "-p", "ActiveState", name)
		if got.Stdout != "LoadState=masked\nActiveState=inactive\n" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	run.stop()
}

// The command is the init itself.
func TestServicesCMDIsInit(t *testing.T) {
	t.Parallel()
	for _, v := range sideInits {
		if v.name == "runit with an init script" {
			continue // refused
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			run := startTask(t, v.image, withBoot(), withRich("halt-timeout", "2m"), withRich("services", "side"), withBind(dir, "/data", "rbind", "rw"),
				v.service("side", "#!/bin/sh\necho $1 >>/data/log\n"), withArgs("/sbin/init"))
			eventually(t, initLimit, "the service", func() error {
				_, err := os.Stat(filepath.Join(dir, "log"))
				return err
			})
			// The halt may be asked for at any moment; a service that is just being started may not be stopped then.
			if strings.HasPrefix(v.name, "systemd") {
				run.booted()
			}
			if strings.Contains(v.name, "OpenRC") || v.name == "openrc-init" {
				eventually(t, initLimit, "the service's state", func() error {
					if got := run.Exec("rc-service", "side", "status"); got.Code != 0 {
						return fmt.Errorf("%+v", got)
					}
					return nil
				})
			}
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(initLimit); code != 0 {
				run.fatal("exit status %d", code)
			}
			run.Delete()
			if got := readLines(t, filepath.Join(dir, "log")); !slices.Equal(got, []string{"start", "stop"}) {
				t.Errorf("the log is %q", got)
			}
		})
	}
}

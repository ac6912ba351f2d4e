package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The field cases about what comes out of a container and goes into it, and about a second start.

func TestB24Output(t *testing.T) {
	t.Parallel()
	all := append([]variant{plain}, everyInit...)
	user := map[string]taskOption{"root": withUser(0, 0), "uid 1000": withUser(1000, 1000)}
	for who, as := range user {
		t.Run("case as "+who, func(t *testing.T) {
			t.Parallel()
			forEach(t, all, func(t *testing.T, v variant) {
				got := runTask(t, v.image, runLimit, v.with(as, withArgs("sh", "-c",
					`echo out; echo err >&2; head -c 300000 /dev/zero | tr '\0' x; sleep 1; echo last`))...)
				if want := "out\n" + strings.Repeat("x", 300000) + "last\n"; got.Stdout != want || got.Stderr != "err\n" || got.Code != 0 {
					t.Errorf("%d bytes of stdout %q…, stderr %q, status %d", len(got.Stdout), tail(got.Stdout)[:20], got.Stderr, got.Code)
				}
			})
		})
		// Whoever the command is can open its streams again.
		t.Run("opened again as "+who, func(t *testing.T) {
			t.Parallel()
			forEach(t, all, func(t *testing.T, v variant) {
				got := runTask(t, v.image, runLimit, v.with(as, withArgs("sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr; echo c >> /proc/self/fd/2"))...)
				if want := (result{Stdout: "a\n", Stderr: "b\nc\n"}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		})
	}
	t.Run("large", func(t *testing.T) {
		t.Parallel()
		forEach(t, mostInits, func(t *testing.T, v variant) {
			const size = 3 << 20
			got := runTask(t, v.image, runLimit, v.with(withProbe("blob", fmt.Sprint(size)))...)
			for name, stream := range map[string]struct {
				text  string
				first byte
			}{"stdout": {got.Stdout, 'A'}, "stderr": {got.Stderr, 'a'}} {
				if len(stream.text) != size {
					t.Errorf("%d bytes of %s, want %d", len(stream.text), name, size)
				}
				for i := range len(stream.text) {
					if stream.text[i] != stream.first+byte(i%26) {
						t.Errorf("byte %d of %s is %q", i, name, stream.text[i])
						break
					}
				}
			}
		})
	})
	t.Run("binary", func(t *testing.T) {
		t.Parallel()
		var every []byte
		for i := range 1 << 16 {
			every = append(every, byte(i), byte(i>>8))
		}
		file := filepath.Join(t.TempDir(), "bytes")
		if err := os.WriteFile(file, every, 0o644); err != nil {
			t.Fatal(err)
		}
		forEach(t, everyInit, func(t *testing.T, v variant) {
			got := runTask(t, v.image, runLimit, v.with(withBind(file, "/bytes"), withArgs("sh", "-c", "cat /bytes; cat /bytes >&2"))...)
			if got.Stdout != string(every) || got.Stderr != string(every) {
				t.Errorf("%d and %d bytes, want the same %d", len(got.Stdout), len(got.Stderr), len(every))
			}
		})
	})
	// When the end of the task is known, every byte is where its reader can get it.
	for _, terminal := range []bool{false, true} {
		t.Run(map[bool]string{false: "last bytes", true: "last bytes of a terminal"}[terminal], func(t *testing.T) {
			t.Parallel()
			forEach(t, all, func(t *testing.T, v variant) {
				// Nobody reads until the end, and a fifo's sixteen pages are only certain to be half filled.
				script := "head -c 30000 /dev/zero | tr '\\0' x; echo last; head -c 1000 /dev/zero | tr '\\0' y >&2"
				opts := v.with(withArgs("sh", "-c", script))
				if terminal {
					opts = append(opts, withSpec(oci.WithTTY))
				}
				streams := newUnread(t, terminal)
				run := newTask(t, v.image, opts...)
				run.replace(streams.create)
				run.Start()
				if code := run.Wait(runLimit); code != 0 {
					t.Errorf("exit status %d", code)
				}
				stdout, stderr := streams.now(t, streams.stdout), streams.now(t, streams.stderr)
				want, wantErr := strings.Repeat("x", 30000)+"last\n", strings.Repeat("y", 1000)
				if terminal {
					want, wantErr = strings.ReplaceAll(want, "\n", "\r\n")+wantErr, ""
				}
				if stdout != want || stderr != wantErr {
					t.Errorf("%d and %d bytes, want %d and %d: %q %q", len(stdout), len(stderr), len(want), len(wantErr), tail(stdout), tail(stderr))
				}
				run.Delete()
			})
		})
	}
	t.Run("stdin", func(t *testing.T) {
		t.Parallel()
		for who, as := range user {
			t.Run(who, func(t *testing.T) {
				t.Parallel()
				forEach(t, everyInit, func(t *testing.T, v variant) {
					if v == systemdSid && who != "root" {
						t.Skip("one of the kind is enough")
					}
					run := startTask(t, v.image, v.with(as, withProbe("cat"), withStdin())...)
					input := bytes.Repeat([]byte("0123456789\x00\xff\x04\x03\r\n"), 1<<16)
					if _, err := run.Stdin.Write(input); err != nil {
						t.Fatal(err)
					}
					run.CloseStdin()
					if code := run.Wait(runLimit); code != 0 {
						t.Errorf("exit status %d", code)
					}
					run.Delete()
					if got := run.Stdout.Bytes(); !bytes.Equal(got, input) {
						t.Errorf("%d bytes came back, want %d", len(got), len(input))
					}
				})
			})
		}
	})
	// An ended input does not end anything else.
	t.Run("end of stdin", func(t *testing.T) {
		t.Parallel()
		forEach(t, mostInits, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(withStdin(), withArgs("sh", "-c", "read line; echo \"$line\"; cat; echo end; exit 6"))...)
			if _, err := run.Stdin.Write([]byte("hello\nrest")); err != nil {
				t.Fatal(err)
			}
			run.WaitOutput("hello\n", runLimit)
			run.CloseStdin()
			if code := run.Wait(runLimit); code != 6 {
				t.Errorf("exit status %d", code)
			}
			run.Delete()
			if got := run.Stdout.String(); got != "hello\nrestend\n" {
				t.Errorf("stdout is %q", got)
			}
		})
	})
	// What the init says goes to a log of its own, and to the journal.
	t.Run("of the init", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(withArgs("sh", "-c", "trap 'echo bye; exit 0' TERM; echo mine; echo mine >&2; "+idle))...)
			run.WaitOutput("mine\n", runLimit)
			run.booted()
			if content, err := os.ReadFile(run.bundle("rich", "init.log")); err != nil || !strings.Contains(string(content), "Command of the container") {
				t.Errorf("init.log: %v\n%s", err, content)
			}
			if got := run.Exec("journalctl", "--no-pager", "_PID=1"); !strings.Contains(got.Stdout, "Reached target") {
				t.Errorf("the journal is %+v", got)
			}
			run.stop()
			if stdout, stderr := run.Stdout.String(), run.Stderr.String(); stdout != "mine\nbye\n" || stderr != "mine\n" {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	})
}

func TestB34SecondStart(t *testing.T) {
	t.Parallel()
	const cmd = `trap 'exit 5' TERM; echo "$RUN:$1"; echo "in $RUN" | systemd-cat -t rich-test; ` + idle
	// The stale files of services, as an image or an earlier start that was killed leaves them.
	stale := func(s *taskSettings) {
		without("/var/run")(s)
		for _, name := range []string{"crond.pid", "sshd.pid", "rsyslogd.pid", "dbus/pid", "systemd/notify", "rich/shim.sock", "rich/units/stale.service"} {
			withFile("/var/run/"+name, "1\n", 0o644)(s)
		}
	}
	again := func(n int) func(p *specs.Process) {
		return func(p *specs.Process) {
			p.Env = []string{"PATH=/usr/bin:/bin", fmt.Sprintf("RUN=%d", n)}
			p.Args = []string{"sh", "-c", cmd, "sh", fmt.Sprintf("arg%d", n)}
		}
	}
	for name, c := range map[string]struct {
		opts []taskOption
		end  func(t *testing.T, r *task) int
	}{
		"stopped": {nil, func(_ *testing.T, r *task) int { r.Kill(syscall.SIGTERM); return 5 }},
		"killed":  {nil, func(_ *testing.T, r *task) int { r.Kill(syscall.SIGKILL); return 137 }},
		"killed with folder var-run": {[]taskOption{stale}, func(_ *testing.T, r *task) int {
			r.Kill(syscall.SIGKILL)
			return 137
		}},
		"killed with folder var-run as CRI": {[]taskOption{stale, withoutRunMount()}, func(_ *testing.T, r *task) int {
			r.Kill(syscall.SIGKILL)
			return 137
		}},
		"shim killed": {nil, func(t *testing.T, r *task) int {
			if err := syscall.Kill(r.shimPID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return 137
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{systemdBookworm}, func(t *testing.T, v variant) {
				opts := append(v.with(c.opts...), withProcess(again(1)), withRootfs(func(root *os.Root) error { return root.MkdirAll("var/log/journal", 0o755) }))
				run, log := watch(t, v.image, opts...)
				run.WaitOutput("\n", runLimit)
				want := c.end(t, run)
				// Not by Wait, which ends with the shim.
				if exit := log.Wait(runtime.TaskExitEventTopic, runLimit).(*events.TaskExit); exit.ID != run.ID || int(exit.ExitStatus) != want {
					t.Errorf("the exit event is %v, want status %d", exit, want)
				}
				if name == "shim killed" {
					// containerd has deleted the task itself.
					log.Wait(runtime.TaskDeleteEventTopic, runLimit)
					run.Task.IO().Cancel()
					run.Task.IO().Close()
				} else if code := run.endTask(); code != want {
					t.Errorf("delete reports %d, want %d", code, want)
				}
				for n := 2; n <= 3; n++ {
					run.again(again(n))
					run.WaitOutput("\n", runLimit)
					if want, got := fmt.Sprintf("%d:arg%d\n", n, n), run.Stdout.String(); got != want {
						t.Errorf("the command said %q, want %q", got, want)
					}
					if state := run.booted(); state != "running" {
						t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
					}
					if got := run.Exec("systemctl", "is-active", "cron", "rsyslog", "ssh", "dbus"); got.Stdout != strings.Repeat("active\n", 4) {
						t.Errorf("the services are %+v", got)
					}
					if got := run.Exec("ls", "/run/rich/units"); strings.Contains(got.Stdout, "stale") || !strings.Contains(got.Stdout, "rich-app.service") {
						t.Errorf("the units are %+v", got)
					}
					eventually(t, runLimit, "the journal of this start", func() error {
						got := run.Exec("journalctl", "--no-pager", "-b", "-o", "cat", "-t", "rich-test")
						if !strings.Contains(got.Stdout, fmt.Sprintf("in %d\n", n)) {
							return fmt.Errorf("%+v", got)
						}
						return nil
					})
					run.Kill(syscall.SIGTERM)
					if code := run.Wait(runLimit); code != 5 {
						t.Errorf("exit status %d, want 5", code)
					}
					run.endTask()
				}
			})
		})
	}
	t.Run("dumb-init", func(t *testing.T) {
		t.Parallel()
		for _, image := range []string{imageBusybox, imageBookworm} {
			change := func(n int) func(p *specs.Process) {
				return func(p *specs.Process) { p.Args = []string{"sh", "-c", fmt.Sprintf("echo %d; exit %d", n, n)} }
			}
			run := startTask(t, image, withInit("dumb-init"), withProcess(change(1)))
			for n := 1; n <= 3; n++ {
				if n > 1 {
					run.again(change(n))
				}
				if code := run.Wait(runLimit); code != n {
					t.Errorf("exit status %d, want %d", code, n)
				}
				run.endTask()
				if got := run.Stdout.String(); got != fmt.Sprintln(n) {
					t.Errorf("stdout is %q", got)
				}
			}
		}
	})
}

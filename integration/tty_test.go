package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// say types a line into the terminal, or single keys.
func (r *task) say(text string) {
	r.t.Helper()
	if _, err := fmt.Fprint(r.Stdin, text); err != nil {
		r.fatal("type %q: %v", text, err)
	}
}

// The command owns its terminal as it would on a machine.
func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{dumbInit, systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
		run := startTask(t, v.image, v.with(withTerminal(), withStdin(), withEnv("TERM=dumb", "PS1=> "), withArgs("bash", "--norc", "-i"))...)
		run.WaitOutput("> ", runLimit)
		if got := run.Stdout.String(); got != "> " {
			t.Errorf("before the prompt there is %q", got)
		}
		run.say("stty -echo; tty\n")
		run.WaitOutput("/dev/", runLimit)
		if v.init == "systemd" {
			run.booted()
		}

		// The shell leads the session of the terminal, and is its foreground group.
		run.say("set -- $(ps -o sid=,pgid=,tpgid=,tty= -p $$); echo owner $(($1 == $$ && $2 == $$)) tty $4\n")
		run.WaitOutput("owner 1 tty pts/", runLimit)

		run.say("trap 'echo got winch' WINCH; echo trap is set\n")
		run.WaitOutput("trap is set", runLimit)
		ctx, cancel := private.within(callLimit)
		defer cancel()
		if err := run.Task.Resize(ctx, 97, 31); err != nil {
			t.Fatal(err)
		}
		run.say("stty size\n")
		run.WaitOutput("31 97", runLimit)
		run.WaitOutput("got winch", runLimit)

		run.say("sleep 7654; echo code $?\n")
		run.waitCommandLine("sleep", "7654")
		run.say("\x1a") // Ctrl-Z
		run.WaitOutput("Stopped", runLimit)
		run.say("echo jobs $(jobs -s | wc -l); bg; echo back $(jobs -r | wc -l)\n")
		run.WaitOutput("jobs 1", runLimit)
		run.WaitOutput("back 1", runLimit)
		run.say("fg\n")
		eventually(t, runLimit, "the name of the job in the foreground", func() error {
			if n := strings.Count(run.Stdout.String(), "sleep 7654\r\n"); n < 2 { // the first when it was stopped
				return fmt.Errorf("it came %d times", n)
			}
			return nil
		})
		run.say("\x03") // Ctrl-C: for the foreground group alone
		run.say("echo code $?\n")
		run.WaitOutput("code 130", runLimit)
		run.running()
		if v.init == "systemd" && strings.TrimSpace(run.ExecAs(asRoot, "systemctl", "is-system-running").Stdout) != "running" {
			t.Error("Ctrl-C has reached the init")
		}
		run.say("exit 7\n")
		if code := run.Wait(runLimit); code != 7 {
			run.fatal("exit status %d, want 7", code)
		}
		run.Delete()
	})
}

// A hangup in between would look like the end of the terminal to the command.
func TestTerminalNoHangup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v      variant
		rounds int
	}{{dumbInit, 180}, {systemdBookworm, 20}} {
		t.Run(c.v.name, func(t *testing.T) {
			t.Parallel()
			rounds := make(chan int)
			var done sync.WaitGroup
			for range 2 {
				done.Go(func() {
					for range rounds {
						run, err := tryTask(t, c.v.image, c.v.with(withTerminal(), withArgs("sh", "-c", "trap 'exit 99' HUP; test -t 0 && exit 3"))...)
						if err != nil {
							t.Errorf("create: %v", err)
							continue
						}
						run.Start()
						if code := run.Wait(runLimit); code != 3 || run.Stdout.String() != "" {
							t.Errorf("exit status %d, output %q", code, run.Stdout)
						}
						run.Delete()
					}
				})
			}
			for n := range c.rounds {
				rounds <- n
			}
			close(rounds)
			done.Wait()
		})
	}
}

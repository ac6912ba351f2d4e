package life

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

func code(n int) syscall.WaitStatus                 { return syscall.WaitStatus(n << 8) }
func signalled(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }

// epoch is when the containers of these tests begin.
var epoch = time.Unix(1000, 0)

// told is a life to which things happen, a second apart.
type told struct {
	*Life
	t    *testing.T
	now  time.Time
	done Actions // the last that were asked for
	oom  bool
}

func tell(t *testing.T, s Setup) *told {
	if s.OnExit == "" {
		s.OnExit = config.OnExitStop
	}
	if s.Shape.HasInit() {
		s.Halt = 37
	}
	s.Stops = append(s.Stops, unix.SIGTERM)
	return &told{Life: New(s), t: t, now: epoch}
}

func (l *told) tick() time.Time {
	l.now = l.now.Add(time.Second)
	return l.now
}

// start lets pid 1 go.
func (l *told) start() *told {
	if !l.Shape.HasInit() {
		l.Begins(l.tick())
	}
	l.Started()
	return l
}

// ask has a launcher ask for the command.
func (l *told) ask(want Answer) *told {
	l.t.Helper()
	var got Answer
	if got, l.done = l.Ask(l.tick()); got != want {
		l.t.Errorf("a launcher that asks gets %v, want %v", got, want)
	}
	return l
}

// run starts the command by a launcher.
func (l *told) run() *told {
	l.t.Helper()
	l.ask(Given)
	l.Handed()
	l.Running()
	return l
}

// exit ends the command by itself, stop because the init wanted it.
func (l *told) exit(status uint32) *told { return l.end(&launch.Exited{Status: status}) }

func (l *told) stop(status uint32) *told {
	return l.end(&launch.Exited{Status: status, Requested: true})
}

func (l *told) end(e *launch.Exited) *told {
	var stays bool
	if stays, l.done = l.Exited(e, l.tick()); !stays {
		l.Left()
	}
	return l
}

func (l *told) signal(sig syscall.Signal) *told {
	l.t.Helper()
	var err error
	if l.done, err = l.Signal(sig); err != nil {
		l.t.Errorf("signal %d: %v", sig, err)
	}
	return l
}

// halts checks that the init is asked to halt, or not.
func (l *told) halts(want bool) *told {
	l.t.Helper()
	if l.done.Halt != want {
		l.t.Errorf("the init is asked to halt: %v", l.done.Halt)
	}
	return l
}

// gone is the end of pid 1, a SIGKILL that comes too late, and the end of what is
// to be heard.
func (l *told) gone(ws syscall.WaitStatus) *told {
	l.t.Helper()
	l.InitGone(ws)
	l.signal(unix.SIGKILL)
	l.Close()
	return l
}

func service() Setup { return Setup{Shape: initmode.ServiceOfInit} }
func itself() Setup  { return Setup{Shape: initmode.InitItself} }
func plain() Setup   { return Setup{Shape: initmode.Untouched} }
func reaped() Setup  { return Setup{Shape: initmode.ChildOfReaper} }

func onExit(what string) Setup { return Setup{Shape: initmode.ServiceOfInit, OnExit: what} }

// ends is a way of a life to its end.
type ends struct {
	status uint32
	reason string
	setup  Setup
	how    func(*told)
}

// Each row of docs/signals-and-status.md, and how it can come about.
var statuses = map[string][]ends{
	"the command ends by itself, with code n or by signal s": {
		{42, ReasonExit, service(), func(l *told) { l.start().run().exit(42).halts(true).gone(code(0)) }},
		{0, ReasonExit, service(), func(l *told) { l.start().run().exit(0).halts(true).gone(signalled(unix.SIGINT)) }},
		{139, ReasonSignal, service(), func(l *told) { l.start().run().exit(139).halts(true).gone(signalled(unix.SIGINT)) }},
		{42, ReasonExit, service(), func(l *told) { l.start().run().exit(42).gone(signalled(unix.SIGKILL)) }}, // at the time limit
		{1, ReasonExit, service(), func(l *told) { l.start().run(); l.Rebooting(); l.exit(1).gone(signalled(unix.SIGHUP)) }},
		{137, ReasonSignal, service(), func(l *told) { l.start().run().end(nil).halts(true).gone(code(0)) }}, // with its launcher
		{137, ReasonOOM, service(), func(l *told) { l.oom = true; l.start().run().exit(137).gone(code(0)) }},
		{3, ReasonExit, plain(), func(l *told) { l.start().gone(code(3)) }},
		{139, ReasonSignal, plain(), func(l *told) { l.start().gone(signalled(unix.SIGSEGV)) }},
		{129, ReasonSignal, plain(), func(l *told) { l.start().gone(signalled(unix.SIGHUP)) }}, // which is no reboot
		{137, ReasonOOM, reaped(), func(l *told) { l.oom = true; l.start().gone(code(137)) }},
		{7, ReasonExit, itself(), func(l *told) { l.start().gone(code(7)) }},
		{42, ReasonExit, onExit(config.OnExitKeep), func(l *told) { l.start().run().exit(42).halts(false).gone(signalled(unix.SIGTERM)) }},
	},
	"the task was asked to stop": {
		{5, ReasonStop, service(), func(l *told) { l.start().run().signal(unix.SIGTERM).halts(false).exit(5).halts(true).gone(code(0)) }},
		{5, ReasonStop, service(), func(l *told) { l.start().run().signal(37).exit(5).gone(signalled(unix.SIGINT)) }},
		{143, ReasonStop, Setup{Shape: initmode.ServiceOfInit, AnyStops: true}, func(l *told) { l.start().run().signal(unix.SIGUSR1).exit(143).halts(true).gone(code(0)) }},
		{3, ReasonStop, service(), func(l *told) { l.start().run().stop(3).halts(false).signal(unix.SIGTERM).halts(true).gone(code(0)) }},
		{42, ReasonStop, onExit(config.OnExitKeep), func(l *told) { l.start().run().exit(42).signal(unix.SIGTERM).halts(true).gone(code(0)) }},
		{143, ReasonStop, plain(), func(l *told) { l.start().signal(unix.SIGTERM).gone(signalled(unix.SIGTERM)) }},
		{0, ReasonStop, itself(), func(l *told) { l.start().signal(unix.SIGTERM).halts(true).gone(code(0)) }},
	},
	"the same, before the command was started": {
		{143, ReasonStop, service(), func(l *told) { l.start().signal(unix.SIGTERM).halts(true).ask(Stopping).gone(code(0)) }},
		{143, ReasonStop, service(), func(l *told) { l.signal(unix.SIGTERM).gone(signalled(unix.SIGKILL)) }}, // before Start
	},
	"`SIGKILL` is sent to the task": {
		{137, ReasonKill, service(), func(l *told) { l.start().run().signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }},
		{137, ReasonKill, service(), func(l *told) { l.start().run().stop(0).signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }},
		{137, ReasonKill, service(), func(l *told) {
			l.start().signal(unix.SIGTERM).signal(unix.SIGKILL).gone(signalled(unix.SIGKILL))
		}},
		{137, ReasonKill, onExit(config.OnExitRestart), func(l *told) { l.start().run().exit(42).signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }},
		{0, ReasonKill, service(), func(l *told) { l.start().run().exit(0).signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }}, // which had ended
		{137, ReasonKill, plain(), func(l *told) { l.start().signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }},
		{137, ReasonKill, itself(), func(l *told) { l.start().signal(unix.SIGKILL).gone(signalled(unix.SIGKILL)) }},
	},
	"`systemctl stop`, `restart` or `kill` of `rich-app.service` with `SIGTERM`": {
		{7, ReasonExit, service(), func(l *told) { l.start().run().stop(143).halts(false).run().exit(7).halts(true).gone(code(0)) }},
	},
	"`systemctl poweroff` or `halt` inside": {
		{7, ReasonHalt, service(), func(l *told) { l.start().run().stop(7).halts(false).gone(code(0)) }},
		{143, ReasonHalt, service(), func(l *told) { l.start().run().stop(143).gone(signalled(unix.SIGINT)) }},
		{0, ReasonExit, itself(), func(l *told) { l.start().gone(code(0)) }},
		{0, ReasonExit, itself(), func(l *told) { l.start().gone(signalled(unix.SIGINT)) }},
		{0, ReasonExit, itself(), func(l *told) { l.start(); l.Halted(); l.gone(signalled(unix.SIGKILL)) }},
	},
	"`systemctl reboot` inside": {
		{133, ReasonReboot, service(), func(l *told) { l.start().run(); l.Rebooting(); l.stop(7).gone(code(0)) }},
		{133, ReasonReboot, service(), func(l *told) { l.start().run().stop(7).gone(signalled(unix.SIGHUP)) }},
		{133, ReasonReboot, onExit(config.OnExitKeep), func(l *told) { l.start().run().exit(42); l.Rebooting(); l.gone(code(0)) }},
		{133, ReasonReboot, itself(), func(l *told) { l.start(); l.Rebooting(); l.Halted(); l.gone(signalled(unix.SIGKILL)) }},
		{133, ReasonReboot, itself(), func(l *told) { l.start().gone(signalled(unix.SIGHUP)) }},
	},
	"the command does not exist": {
		{127, ReasonExit, service(), func(l *told) { l.start().ask(Given).exit(127).halts(true).gone(code(0)) }},
	},
	"the command cannot be executed": {
		{126, ReasonExit, service(), func(l *told) { l.start().ask(Given).exit(126).halts(true).gone(code(0)) }},
	},
	"systemd ends before it started the command": {
		{125, ReasonExit, service(), func(l *told) { l.start().gone(code(0)) }},
		{125, ReasonExit, service(), func(l *told) { l.start(); l.done = l.LauncherFailed(); l.halts(true).gone(code(0)) }},
	},
	"the launcher is of another version than the shim": {
		{125, ReasonStart, service(), func(l *told) { l.start(); l.Unfit(errors.New("unfit")); l.gone(signalled(unix.SIGKILL)) }},
	},
	"a prestart hook fails": {
		{125, ReasonPrestart, service(), func(l *told) {
			l.start()
			l.done = l.PrestartFailed(errors.New("hook"))
			l.halts(true).ask(Stopping).gone(code(0))
		}},
		{125, ReasonPrestart, plain(), func(l *told) {
			if do := l.PrestartFailed(errors.New("hook")); !do.Kill {
				l.t.Error("nothing is killed")
			}
			l.gone(signalled(unix.SIGKILL))
		}},
	},
	"a component that is required cannot be started": {
		{125, ReasonComponent, service(), func(l *told) {
			l.start()
			l.done = l.ComponentMissing("late")
			l.halts(true).ask(Stopping).gone(code(0))
		}},
		{125, ReasonComponent, itself(), func(l *told) { l.start(); l.done = l.ComponentMissing("late"); l.halts(true).gone(code(0)) }},
	},
	"anything else ends pid 1": {
		{137, ReasonSignal, service(), func(l *told) { l.start().run().gone(signalled(unix.SIGKILL)) }},
		{1, ReasonExit, service(), func(l *told) { l.start().gone(code(1)) }},
		{125, ReasonStart, plain(), func(l *told) { l.Begins(l.tick()); l.NotStarted(); l.gone(code(125)) }},
	},
}

// docsTable is the first column of the table below a line of a document.
func docsTable(t *testing.T, file, header string) (rows []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), header)
	if !found {
		t.Fatalf("%s has no table %q", file, header)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(table, -1) {
		rows = append(rows, m[1])
	}
	return rows
}

func TestStatus(t *testing.T) {
	rows := docsTable(t, "../docs/signals-and-status.md", "| What happened | Exit status |\n|---|---|\n")
	if len(rows) != len(statuses) {
		t.Errorf("the document has %d rows, this test %d", len(rows), len(statuses))
	}
	for _, row := range rows {
		if len(statuses[row]) == 0 {
			t.Errorf("no test of: %s", row)
		}
		for i, c := range statuses[row] {
			l := tell(t, c.setup)
			c.how(l)
			e, _ := l.Conclude(l.tick(), l.oom, true)
			if e.Code != c.status || e.Reason != c.reason {
				t.Errorf("%s, %d: %d, %s; want %d, %s", row, i, e.Code, e.Reason, c.status, c.reason)
			}
		}
	}
}

// Each reason of docs/hooks.md is one that the tests above come to.
func TestReasons(t *testing.T) {
	seen := map[string]bool{ReasonLost: true} // nobody is there to judge
	for _, row := range statuses {
		for _, c := range row {
			seen[c.reason] = true
		}
	}
	documented := map[string]bool{}
	for _, row := range docsTable(t, "../docs/hooks.md", "| Reason | What happened |\n|---|---|\n") {
		for _, m := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row, -1) {
			documented[m[1]] = true
			if !seen[m[1]] {
				t.Errorf("no test ends with the reason %s", m[1])
			}
		}
	}
	for reason := range seen {
		if !documented[reason] {
			t.Errorf("the reason %s is not documented", reason)
		}
	}
}

// Who has been told how the command ended is not told otherwise later.
func TestVerdictStays(t *testing.T) {
	l := tell(t, service()).start().signal(unix.SIGTERM)
	first, crashed := l.Conclude(l.tick(), false, true)
	if crashed || first.Code != 143 || first.Reason != ReasonStop {
		t.Fatalf("%+v, %v", first, crashed)
	}
	l.signal(unix.SIGKILL).gone(signalled(unix.SIGKILL))
	if last, crashed := l.Conclude(l.tick(), true, true); crashed || last != first {
		t.Errorf("first %+v, then %+v, %v", first, last, crashed)
	}
	l = tell(t, service()).start().run().exit(3)
	if e, crashed := l.Conclude(l.tick(), false, false); !crashed || e.Duration != 2*time.Second {
		t.Errorf("%+v, %v", e, crashed)
	}
	l.signal(unix.SIGKILL)
	if e, crashed := l.Conclude(l.tick(), false, true); crashed || e.Reason != ReasonExit || e.Duration != 2*time.Second {
		t.Errorf("after a crash that has been told: %+v, %v", e, crashed)
	}
}

func TestSignals(t *testing.T) {
	l := tell(t, service()).start()
	l.signal(unix.SIGHUP).signal(unix.SIGHUP).signal(40).signal(40)
	if n := l.NextSignal(); n != 0 {
		t.Errorf("without a command there is signal %d for it", n)
	}
	l.ask(Given)
	if n := l.NextSignal(); n != 0 {
		t.Errorf("before the launcher has it there is signal %d for it", n)
	}
	if do := l.Handed(); !do.Wake {
		t.Error("nobody is woken")
	}
	for _, want := range []int{1, 40, 40, 0} {
		if n := l.NextSignal(); n != want {
			t.Errorf("signal %d, want %d", n, want)
		}
	}
	for range maxPending {
		l.signal(50)
	}
	if _, err := l.Signal(50); err == nil {
		t.Error("one more is kept")
	}
	l.exit(1)
	if _, err := l.Signal(unix.SIGUSR1); !errors.Is(err, ErrOver) {
		t.Errorf("after the end: %v", err)
	}
	for name, c := range map[string]struct {
		setup Setup
		sig   syscall.Signal
		want  Actions
	}{
		"plain":                   {plain(), unix.SIGHUP, Actions{Signal: unix.SIGHUP}},
		"plain, a stop":           {plain(), unix.SIGTERM, Actions{Signal: unix.SIGTERM, CallOff: true}},
		"below dumb-init":         {reaped(), 40, Actions{Forward: 40}},
		"an init as the command":  {itself(), unix.SIGHUP, Actions{Signal: unix.SIGHUP}},
		"an init, to be stopped":  {itself(), unix.SIGTERM, Actions{Halt: true, CallOff: true}},
		"an init, to be halted":   {itself(), 37, Actions{Halt: true, CallOff: true}},
		"whatever it is, SIGKILL": {service(), unix.SIGKILL, Actions{CallOff: true, Kill: true, Abort: true}},
	} {
		if l := tell(t, c.setup).start().signal(c.sig); l.done != c.want {
			t.Errorf("%s: %+v, want %+v", name, l.done, c.want)
		}
	}
	if l := tell(t, itself()).signal(unix.SIGHUP); !l.done.Kill {
		t.Errorf("before Start: %+v", l.done)
	}
	if l := tell(t, reaped()).signal(unix.SIGHUP); l.done.Signal != unix.SIGHUP {
		t.Errorf("dumb-init before Start: %+v", l.done)
	}
}

func TestOnExit(t *testing.T) {
	l := tell(t, onExit(config.OnExitRestart)).start().run()
	for i, pause := range []time.Duration{100, 200, 400, 800} {
		l.exit(1).halts(false)
		if c := l.done.Crashed; c == nil || c.Code != 1 || c.Reason != ReasonExit || c.Duration != time.Second {
			t.Errorf("crash %d: %+v", i, c)
		}
		until, wait := l.Waits()
		if at := l.now.Add(pause * time.Millisecond); !wait || !until.Equal(at) {
			t.Errorf("start %d is due at %v, want %v", i, until, at)
		}
		if again, do := l.Due(l.tick()); !again || !do.Show {
			t.Errorf("start %d: %v, %+v", i, again, do)
		}
	}
	if s := l.State(); !s.Running || s.Starts != 5 || s.RestartAt != nil || *s.Status != 1 {
		t.Errorf("%+v", s)
	}
	l.now = l.now.Add(restartReset)
	l.exit(1)
	if until, _ := l.Waits(); !until.Equal(l.now.Add(restartMin)) {
		t.Errorf("after a long run the next start is due at %v", until)
	}
	if expected, do := l.Deserted(); expected || !do.Halt {
		t.Error("without a launcher the container stays")
	}
	l = tell(t, onExit(config.OnExitRestart)).start().run().end(nil).halts(true)
	if l.done.Crashed != nil {
		t.Error("the end of the container is a crash after which it goes on")
	}
	l = tell(t, onExit(config.OnExitRestart)).start().run().exit(1)
	l.Left()
	l.run().exit(1)
	if until, _ := l.Waits(); !until.Equal(l.now.Add(restartMin)) {
		t.Errorf("with a new launcher the pause ends at %v", until)
	}
	l = tell(t, onExit(config.OnExitKeep)).start().run().end(nil).halts(false)
	l.ask(Given).ask(Busy).stop(0).halts(false)
	if _, do := l.Deserted(); do.Halt {
		t.Error("with keep nobody has to start it again")
	}
	l = tell(t, onExit(config.OnExitRestart)).start().run().exit(0).signal(unix.SIGTERM).halts(true)
	if again, _ := l.Due(l.tick()); again {
		t.Error("the command is started although the container stops")
	}
}

func TestFaults(t *testing.T) {
	l := tell(t, service()).start().run()
	if believed, _ := l.Unfit(errors.New("x")); believed {
		t.Error("who comes after the command has been started is believed")
	}
	if do := l.LauncherFailed(); do.Halt {
		t.Error("the container ends as its command runs")
	}
	l = tell(t, reaped()).start()
	if do := l.ComponentMissing("x"); do != (Actions{}) {
		t.Errorf("below dumb-init: %+v", do)
	}
	if do := l.LauncherFailed(); do != (Actions{}) || l.Halting() {
		t.Errorf("dumb-init is to be halted: %+v", do)
	}
	l = tell(t, itself()).start().signal(unix.SIGTERM)
	if do := l.ComponentMissing("x"); do != (Actions{}) {
		t.Errorf("as the init halts: %+v", do)
	}
	if e, _ := l.gone(code(0)).Conclude(l.tick(), false, true); e.Code != 0 || e.Reason != ReasonStop {
		t.Errorf("it ends with %+v", e)
	}
	l = tell(t, service()).start()
	if believed, do := l.Unfit(errors.New("x")); !believed || !do.Kill || do.Halt || do.Complain == nil || l.State().Error != "x" {
		t.Errorf("%v, %+v, %+v", believed, do, l.State())
	}
	if do := l.PrestartFailed(errors.New("y")); do.Complain != nil {
		t.Error("a second reason is told")
	}
	if !l.ComponentFailed("a", "why") || l.ComponentFailed("a", "again") || l.ComponentFault("a") != "why" {
		t.Errorf("component: %q", l.ComponentFault("a"))
	}
	if !l.ComponentReady("b") || l.ComponentReady("b") || l.ComponentFailed("b", "late") {
		t.Error("a component that has been ready does not stay so")
	}
}

func TestInitState(t *testing.T) {
	l := tell(t, service())
	text := "busy"
	if s, changed := l.InitIs(InitStarting, l.now); !changed || s.State != InitStarting || !s.Since.Equal(l.now) {
		t.Errorf("%+v, %v", s, changed)
	}
	if _, changed := l.InitIs(InitStarting, l.tick()); changed {
		t.Error("what is known is news")
	}
	if s, changed := l.InitReady(false, &text, l.tick()); !changed || s.Text != text || !s.Since.Equal(epoch) {
		t.Errorf("%+v, %v", s, changed)
	}
	if s, _ := l.InitReady(true, nil, l.tick()); s.State != InitRunning || !s.Since.Equal(l.now) {
		t.Errorf("%+v", s)
	}
	l.InitIs(InitStopping, l.tick())
	if s, changed := l.InitIs(InitRunning, l.tick()); changed || s.State != InitStopping {
		t.Errorf("it comes back: %+v", s)
	}
	l.Close()
	if _, changed := l.InitReady(false, new(string), l.tick()); changed {
		t.Error("what comes after the end counts")
	}
}

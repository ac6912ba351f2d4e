package life

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

// world checks what holds in any order of facts.
type world struct {
	*told
	halts, crashes, kills int
	holders               int // launchers that have the command or wait for it
	over                  bool
	verdict               *Ending
}

func (w *world) do(do Actions) {
	if do.Halt {
		w.halts++
	}
	if do.Kill {
		w.kills++
	}
	if w.halts > 1 {
		w.t.Fatal("the init is asked to halt twice")
	}
	if do.Crashed != nil && w.over {
		w.t.Fatal("a crash after which the container goes on, at its end")
	}
}

// conclude asks for the verdict, and checks that there is no other one than the
// first that somebody was told.
func (w *world) conclude(tell bool) Ending {
	e, crashed := w.Conclude(w.tick(), w.oom, tell)
	if crashed {
		w.crashes++
	}
	if w.crashes > 1 {
		w.t.Fatal("the crash that ends the container is told twice")
	}
	if w.verdict != nil && *w.verdict != e {
		w.t.Fatalf("a second verdict: %+v, then %+v", *w.verdict, e)
	}
	if tell || crashed {
		w.verdict = &e
	}
	if e.Reason == "" || e.Duration < 0 {
		w.t.Fatalf("no verdict: %+v", e)
	}
	return e
}

// beforeHalt is what is done before the init is halted. With tell there are hooks
// in the container.
func (w *world) beforeHalt(tell bool) {
	if w.halts > 0 && w.Shape == initmode.ServiceOfInit {
		w.conclude(tell && !w.Killed())
	}
}

func (w *world) ask() {
	if w.Shape != initmode.ServiceOfInit {
		return
	}
	answer, do := w.Ask(w.tick())
	w.do(do)
	if answer != Given {
		return
	}
	w.given()
	if w.holders++; w.holders > 1 {
		w.t.Fatal("two launchers have the command")
	}
}

// given checks that the command may be started.
func (w *world) given() {
	if w.verdict != nil || w.halts > 0 && w.Shape == initmode.ServiceOfInit {
		w.t.Fatal("the command is started when its end has been told")
	}
}

func (w *world) exited(e *launch.Exited) {
	if w.holders == 0 || !w.State().Running {
		return // nobody is there to tell that
	}
	stays, do := w.Exited(e, w.tick())
	w.do(do)
	if !stays {
		w.left()
	}
	if w.State().Running {
		w.t.Fatal("an ended command runs")
	}
}

func (w *world) left() {
	if w.holders > 0 {
		w.holders--
		w.Left()
	}
}

func (w *world) due() {
	if w.holders == 0 || w.State().Running {
		return
	}
	again, do := w.Due(w.tick())
	w.do(do)
	if again {
		w.given()
		return
	}
	w.left()
}

func (w *world) signal(sig syscall.Signal) {
	do, err := w.Signal(sig)
	if sig == unix.SIGKILL && (err != nil || !do.Kill) {
		w.t.Fatalf("SIGKILL: %+v, %v", do, err)
	}
	w.do(do)
	for range maxPending + 1 {
		if w.NextSignal() == 0 {
			return
		}
	}
	w.t.Fatal("too many signals are kept")
}

// facts are all that can be told before pid 1 is gone.
var facts = []func(*world){
	func(w *world) { w.start() },
	(*world).ask,
	func(w *world) { w.do(w.Handed()) },
	func(w *world) { w.Running() },
	func(w *world) { w.exited(&launch.Exited{}) },
	func(w *world) { w.exited(&launch.Exited{Status: 3}) },
	func(w *world) { w.exited(&launch.Exited{Status: 137}) },
	func(w *world) { w.exited(&launch.Exited{Status: 143, Requested: true}) },
	func(w *world) { w.exited(nil) },
	(*world).due,
	func(w *world) {
		if w.holders > 0 && !w.State().Running {
			_, do := w.Deserted()
			w.do(do)
			w.left()
		}
	},
	func(w *world) { w.signal(unix.SIGTERM) },
	func(w *world) { w.signal(37) },
	func(w *world) { w.signal(unix.SIGHUP) },
	func(w *world) { w.signal(60) },
	func(w *world) { w.signal(unix.SIGKILL) },
	func(w *world) { w.do(w.PrestartFailed(errors.New("hook"))) },
	func(w *world) { w.do(w.ComponentMissing("component")) },
	func(w *world) { w.do(w.LauncherFailed()) },
	func(w *world) { _, do := w.Unfit(errors.New("unfit")); w.do(do) },
	func(w *world) { w.NotStarted() },
	func(w *world) { w.Rebooting() },
	func(w *world) { w.do(w.Halted()) },
	func(w *world) { w.oom = true },
	func(w *world) { w.InitIs(InitRunning, w.tick()) },
	func(w *world) { w.beforeHalt(false) },
	func(w *world) { w.beforeHalt(true) },
}

// Whatever happens, in whatever order: one verdict, never two ends, never none.
func FuzzOrders(f *testing.F) {
	f.Add(byte(0), []byte{0, 1, 2, 3, 5, 26, 15}, uint32(0))
	f.Add(byte(1), []byte{0, 1, 2, 3, 5, 9, 11, 4}, uint32(9))
	f.Add(byte(2), []byte{0, 1, 8, 1, 7, 21}, uint32(1))
	f.Add(byte(3), []byte{0, 15}, uint32(9))
	f.Add(byte(4), []byte{11, 0}, uint32(2))
	f.Add(byte(5), []byte{0, 16, 17, 19}, uint32(0x700))
	f.Fuzz(func(t *testing.T, kind byte, order []byte, status uint32) {
		setups := []Setup{service(), onExit(config.OnExitRestart), onExit(config.OnExitKeep), plain(), reaped(), itself()}
		w := &world{told: tell(t, setups[int(kind)%len(setups)])}
		w.now = w.now.Add(time.Duration(len(order)))
		for _, n := range order {
			facts[int(n)%len(facts)](w)
		}
		ws := syscall.WaitStatus(status & 0x7f)
		if ws == 0 || ws == 0x7f {
			ws = code(int(status >> 8 & 0xff))
		}
		w.gone(ws)
		w.over = true
		// What its launcher had said before is heard, and whoever comes now is not.
		w.exited(nil)
		w.ask()
		e := w.conclude(true)
		for _, n := range order {
			facts[int(n)%len(facts)](w)
		}
		if last := w.conclude(true); last != e || w.verdict == nil {
			t.Fatalf("at the end %+v, later %+v", e, last)
		}
	})
}

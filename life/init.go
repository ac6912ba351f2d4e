package life

import "time"

// The states of an init, named as by `systemctl is-system-running`.
const (
	InitStarting    = "starting"
	InitRunning     = "running"
	InitDegraded    = "degraded"
	InitMaintenance = "maintenance"
	InitStopping    = "stopping"
)

// InitState is what init.json tells about the init.
type InitState struct {
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Text is the init's own words, if there are any.
	Text string `json:"text,omitempty"`
}

// InitReady is told when the init says by itself that it is ready, with ready, or
// what it does, with text. changed says that this is news.
func (l *Life) InitReady(ready bool, text *string, now time.Time) (s InitState, changed bool) {
	return l.initBecomes(now, func(next *InitState) {
		if ready && next.State == InitStarting {
			next.State = InitRunning
		}
		if text != nil {
			next.Text = *text
		}
	})
}

// InitIs is told a state of the init by an event. An init does not come back from
// its end.
func (l *Life) InitIs(state string, now time.Time) (s InitState, changed bool) {
	return l.initBecomes(now, func(next *InitState) {
		if next.State != InitStopping {
			next.State = state
		}
	})
}

func (l *Life) initBecomes(now time.Time, change func(*InitState)) (InitState, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.init
	change(&next)
	if l.closed || next == l.init {
		return next, false
	}
	if next.State != l.init.State {
		next.Since = now
	}
	l.init = next
	return next, true
}

// Init is how the init is.
func (l *Life) Init() InitState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.init
}

package shim

import (
	"errors"
	"fmt"
	"os"
	"time"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

const (
	// restartMin and restartMax bound the pause before the CMD is started
	// again, which doubles each time.
	restartMin = 100 * time.Millisecond
	restartMax = time.Minute
	// restartReset is how long the CMD must have run for the pause to be
	// short again.
	restartReset = 10 * time.Second
)

// backoff is the pause between two starts of the CMD.
type backoff struct{ next time.Duration }

// after returns the pause after a CMD that ran for that long.
func (b *backoff) after(ran time.Duration) time.Duration {
	if b.next == 0 || ran >= restartReset {
		b.next = restartMin
	}
	pause := b.next
	b.next = min(2*b.next, restartMax)
	return pause
}

// appState is what appFile tells about the CMD.
type appState struct {
	Running bool `json:"running"`
	// Starts counts them.
	Starts int `json:"starts"`
	// Status and EndedAt are those of the last end; nil before it.
	Status  *uint32    `json:"status,omitempty"`
	EndedAt *time.Time `json:"endedAt,omitempty"`
	// RestartAt is when the CMD is started again; nil if it is not.
	RestartAt *time.Time `json:"restartAt,omitempty"`
	// Error is why the CMD cannot be started at all.
	Error string `json:"error,omitempty"`
}

// await waits with a launcher that has no CMD until the next start is due.
// again is false if there is none: the launcher has left.
func (a *app) await(conn *launch.Conn) (again bool, err error) {
	a.mu.Lock()
	closed := a.closed
	var deadline time.Time
	if a.state.RestartAt != nil {
		deadline = *a.state.RestartAt
	}
	a.mu.Unlock()
	if closed {
		return false, nil
	}
	if err := a.door.deadline(conn, deadline); err != nil {
		return false, err
	}
	m, files, err := conn.Receive()
	dropAll(files)
	_, left := m.(launch.Exited)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stopping || a.closed || left:
		// The init ends the launcher, or has asked it to leave.
		return false, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.starting()
		return true, nil
	case err == nil:
		err = fmt.Errorf("unexpected %T", m)
	}
	if a.onExit == config.OnExitRestart {
		// Nobody is left who could start the CMD again.
		a.stopping = true
		a.halt()
	}
	return false, err
}

// noteState writes the state where the container and the host see it.
func (c *container) noteState(s appState) {
	if err := c.bundle.Show(s); err != nil {
		c.log.WithError(err).Warn("store the state of the command")
	}
}

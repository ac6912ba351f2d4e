package shim

import (
	"errors"
	"slices"
)

// moment is when something of a container is closed.
type moment int

// The moments. What is open at a later one is open at those before as well.
const (
	undone  moment = iota // only if Create fails: later it has its own end
	created               // at the end of Create
	ended                 // when pid 1 is gone
	removed               // at Delete
)

// closing is what there is to close of a container, in the order in which it was
// made.
type closing []closer

type closer struct {
	at    moment
	close func() error
}

func (l *closing) add(at moment, do func() error) { *l = append(*l, closer{at, do}) }

// run closes what is due at a moment, the last first. What could not be closed
// stays in the list, with all that was made before it and is due then.
func (l *closing) run(at moment) error {
	for i, c := range slices.Backward(*l) {
		if c.at != at {
			continue
		}
		if err := c.close(); err != nil {
			return err
		}
		*l = slices.Delete(*l, i, i+1)
	}
	return nil
}

// undo closes everything, the last first, whatever fails, and adds that to err.
func (l *closing) undo(err error) error {
	errs := []error{err}
	for _, c := range slices.Backward(*l) {
		errs = append(errs, c.close())
	}
	*l = nil
	return errors.Join(errs...)
}

// keep drops what only an undone Create closes.
func (l *closing) keep() {
	*l = slices.DeleteFunc(*l, func(c closer) bool { return c.at == undone })
}

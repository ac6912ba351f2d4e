package shim

import (
	"containerd-shim-rich/bundle"
	"containerd-shim-rich/life"
)

// showCommand writes the state of the command where the container and the host
// see it.
func (c *container) showCommand(s life.State) {
	if err := c.bundle.Show(s); err != nil {
		c.log.WithError(err).Warn("store the state of the command")
	}
}

// noteInit tells the state of the init, in the log and in a file of the
// bundle.
func (c *container) noteInit(s life.InitState) {
	c.log.WithField("state", s.State).WithField("text", s.Text).Info("state of the init")
	if err := c.bundle.Store(bundle.InitFile, s); err != nil {
		c.log.WithError(err).Warn("store the state of the init")
	}
}

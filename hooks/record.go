package hooks

import (
	"time"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/config"
	"containerd-shim-rich/life"
)

// RecordFile keeps, in the bundle, what has to be known about the hooks of a
// container without its shim.
const RecordFile = "hooks.json"

// record is what RecordFile holds. It is stored before anything that it says
// happens, so that no hook runs twice.
type record struct {
	Version bundle.Format `json:"version"`
	// Prestart are the hooks before the command, Poststop those after it.
	Prestart []config.Hook `json:"prestart,omitempty"`
	Poststop []config.Hook `json:"poststop,omitempty"`
	// Due says that a prestart hook or the command has been started, so that
	// the poststop hooks are to run; Next is the first that has not begun.
	Due  bool `json:"due,omitempty"`
	Next int  `json:"next,omitempty"`
	// Started is when the command was started first, and Ending how it ended.
	Started time.Time    `json:"started,omitzero"`
	Ending  *life.Ending `json:"ending,omitempty"`
	Handler
	// Host says that hooks of the host are to be told the ending.
	Host bool `json:"host,omitempty"`
}

// Handler is what of the handler's options a container for a hook needs.
type Handler struct {
	SystemdCgroup bool `json:"systemdCgroup,omitempty"`
	NoPivotRoot   bool `json:"noPivotRoot,omitempty"`
	NoNewKeyring  bool `json:"noNewKeyring,omitempty"`
}

// store writes the record down if it matters to anybody. The caller holds mu.
func (s *Set) store() error {
	r := &s.record
	if len(r.Prestart) == 0 && len(r.Poststop) == 0 && !r.Host {
		return nil
	}
	return s.bundle.Store(RecordFile, r)
}

package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/runc/libcontainer"

	"containerd-shim-rich/bundle"
	"containerd-shim-rich/child"
	"containerd-shim-rich/life"
	"containerd-shim-rich/oci"
)

// RunOrphans runs the poststop hooks that a shim which is gone has left, and
// notes for those of the host how the command ended. The container is gone as
// well. began is when the clean-up did.
func RunOrphans(b bundle.Bundle, id string, m *bundle.Made, exit bundle.Exit, began time.Time, children *child.Children) error {
	s := &Set{id: id, bundle: b, children: children, log: log.L.WithField("container", id)}
	unread := b.Load(RecordFile, &s.record)
	if errors.Is(unread, os.ErrNotExist) {
		unread = nil
	}
	if unread != nil {
		// Which of them have run is not known: none is run once more.
		unread = fmt.Errorf("%s: %w", RecordFile, unread)
		s.record = record{}
	}
	e := life.Ending{Code: exit.Status, Reason: life.ReasonLost}
	if !s.record.Started.IsZero() {
		e.Duration = exit.At.Sub(s.record.Started)
	}
	if s.record.Ending != nil {
		e = *s.record.Ending
	}
	if _, told := m.State.Annotations[annotationReason]; !told {
		m.State = Annotated(m.State, e)
	}
	if c, err := libcontainer.Load(b.Path(aloneDir), id); err == nil {
		if err := child.Destroy(c, destroyWait); err != nil {
			return errors.Join(unread, fmt.Errorf("end a hook: %w", err))
		}
	}
	if unread != nil {
		return unread
	}
	if !s.record.Due || s.record.Next >= len(s.record.Poststop) {
		return nil
	}
	var err error
	if s.spec, err = oci.Load(string(b)); err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	limit := orphanTimeout
	if len(m.Poststop) > 0 {
		limit -= HostWait
	}
	ctx, cancel := context.WithDeadlineCause(context.Background(), began.Add(limit),
		fmt.Errorf("it had not ended when the %v were over that there are after the shim has been killed", limit))
	defer cancel()
	s.poststop(ctx, e, never, alone{Set: s, rootfs: m.Rootfs}.run)
	return nil
}

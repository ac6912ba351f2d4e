package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/bundle"
)

// RunPoststart runs the hooks that come between the start of pid 1 and the
// answer to Start.
func RunPoststart(ctx context.Context, hooks []specs.Hook, state specs.State, pid int) error {
	state.Status, state.Pid = specs.StateRunning, pid
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := runHook(ctx, hookLabel(configs.Poststart, i, h.Path), h, timeoutOf(h), input); err != nil {
			return err
		}
	}
	return nil
}

// RunPoststop runs the hooks for the end of a container, each of them
// whatever becomes of the others, and none a second time. A limit other than
// 0 bounds them all together.
func RunPoststop(b bundle.Bundle, m *bundle.Made, limit time.Duration) error {
	if len(m.Poststop) == 0 {
		return nil
	}
	hooks := m.Poststop
	m.Poststop = nil
	// Before they run: who comes after a crash must not repeat them. Without
	// the directory somebody else has cleaned up, and run them.
	errs := []error{b.Store(bundle.MadeFile, m)}
	if errors.Is(errs[0], os.ErrNotExist) {
		return errs[0]
	}
	state := m.State
	state.Status, state.Pid = specs.StateStopped, 0
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	for i, h := range hooks {
		timeout := timeoutOf(h)
		if limit != 0 {
			// One that hangs leaves the others their share.
			timeout = min(timeout, time.Until(deadline)/time.Duration(len(hooks)-i))
		}
		errs = append(errs, runHook(context.Background(), hookLabel(configs.Poststop, i, h.Path), h, timeout, input))
	}
	return errors.Join(errs...)
}

// StateOf is the part of a container's state that does not change
// (runtime-spec, State).
func StateOf(id string, b bundle.Bundle, spec *specs.Spec) specs.State {
	return specs.State{Version: specs.Version, ID: id, Bundle: string(b), Annotations: spec.Annotations}
}

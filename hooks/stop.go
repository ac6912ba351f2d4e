package hooks

import (
	"context"

	"containerd-shim-rich/config"
	"containerd-shim-rich/life"
)

// Waiting reports whether there are poststop hooks that are to run and have not
// begun.
func (s *Set) Waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting()
}

func (s *Set) waiting() bool { return s.record.Due && s.record.Next < len(s.record.Poststop) }

// Poststop runs the poststop hooks that have not begun, each once, and only one
// goroutine calls it at a time. gone tells whether the container is gone in which
// run runs a hook: one that could not be started for that is left for later.
func (s *Set) Poststop(e life.Ending, gone func() bool, run Runner) {
	s.poststop(context.Background(), e, gone, run)
}

// PoststopAlone is Poststop when the container is gone, with its root file system.
func (s *Set) PoststopAlone(e life.Ending, rootfs string) {
	s.Poststop(e, never, alone{Set: s, rootfs: rootfs}.run)
}

func never() bool { return false }

func (s *Set) poststop(ctx context.Context, e life.Ending, gone func() bool, run Runner) {
	for {
		hook, hookCtx, ok := s.begin(ctx, e)
		if !ok {
			return
		}
		started, err := run(hookCtx, hook, Poststop)
		if err != nil && !started && gone() && s.postpone() {
			return
		}
	}
}

// begin takes the next poststop hook; ok is false if there is none to be run.
func (s *Set) begin(ctx context.Context, e life.Ending) (hook config.Hook, _ context.Context, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel() // the one before has ended
		s.cancel = nil
	}
	r := &s.record
	if s.active = s.waiting(); !s.active {
		return hook, nil, false
	}
	if s.aborted || ctx.Err() != nil {
		s.log.WithField("hooks", len(r.Poststop)-r.Next).Warn("poststop hooks are not run any more")
		r.Next, s.active = len(r.Poststop), false
		s.noted(s.store())
		return hook, nil, false
	}
	if r.Ending == nil {
		r.Ending = &e
	}
	hook = r.Poststop[r.Next]
	r.Next++
	s.noted(s.store())
	ctx, s.cancel = context.WithCancel(ctx)
	return hook, ctx, true
}

// postpone leaves the hook that was taken for later, unless none is to run any
// more.
func (s *Set) postpone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return false
	}
	s.cancel()
	s.cancel = nil
	s.record.Next--
	s.active = false
	s.noted(s.store())
	return true
}

// Abort ends the poststop hooks if they run, and reports whether they do.
func (s *Set) Abort() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active {
		return false
	}
	s.aborted = true
	if s.cancel != nil {
		s.cancel()
	}
	return true
}

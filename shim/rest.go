package shim

import (
	"context"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"

	"containerd-shim-rich/pages"
)

const (
	// restAfter is how long nothing may be asked of the shim before it gives
	// back the memory that it needed for what was.
	restAfter = time.Second
	// restPause is how long it keeps it at least when it had to take it again:
	// a probe each second must not pay for it each time.
	restPause = 3 * time.Second
	// collectAt is the growth of the heap, in percent of what is in use, that
	// a collection waits for. The library sets 40, with which one create has
	// several. With more than this the containers of a pod lie scattered in the heap,
	// and a rest can give less back.
	collectAt = 100
)

// window is how much of the program's file the kernel maps at once at most, in
// bytes, once the shim has rested.
const window = 64 << 10

// rest gives memory back while the shim has nothing to do, as it has for most
// of its life.
type rest struct {
	look sync.Once // finds the program's own file in memory
	file pages.Areas

	timer *time.Timer
	last  atomic.Pointer[time.Time] // when memory was given back, nil for never
}

// newRest does not rest before something has been asked for.
func newRest() *rest {
	const never = math.MaxInt64
	r := &rest{}
	r.timer = time.AfterFunc(never, r.begin)
	return r
}

// UnaryServerInterceptor notes what is asked of the shim.
func (s *service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
		s.rest.busy()
		defer s.rest.busy()
		return method(ctx, unmarshal)
	}
}

// busy puts the rest off.
func (r *rest) busy() {
	wait := restAfter
	if last := r.last.Load(); last != nil {
		wait = max(wait, restPause-time.Since(*last))
	}
	r.timer.Reset(wait)
}

func (r *rest) begin() {
	r.look.Do(func() {
		r.file = pages.Unwritten()
		r.file.Split(window)
	})
	debug.FreeOSMemory()
	r.file.Release()
	now := time.Now()
	r.last.Store(&now)
}

package shim

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"containerd-shim-rich/child"
	"containerd-shim-rich/event"
	"containerd-shim-rich/stdio"
)

var empty = &emptypb.Empty{}

// service is containerd's task service, version 3. Each verb has a file.
type service struct {
	namespace string
	events    *event.Queue
	children  *child.Children
	loggers   *stdio.Loggers
	programs  *programs
	shutdown  shutdown.Service
	rest      *rest

	mu         sync.Mutex
	containers map[string]*container // nil while the container is being created
	creations  map[string]*creation  // those that are going on
	// leave says that the shim is to end when the last creation fails, and
	// left that it ends.
	leave, left bool
}

// creation is a Create that is going on.
type creation struct {
	giveUp context.CancelCauseFunc
	over   chan struct{} // closed when it has succeeded, or all is reverted
}

var _ task.TTRPCTaskService = (*service)(nil)

func newService(ctx context.Context, address string, sd shutdown.Service) (*service, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	ev, err := event.NewQueue(namespace, address)
	if err != nil {
		return nil, fmt.Errorf("connect to containerd's events: %w", err)
	}
	sd.RegisterCallback(ev.Close)
	logs := stdio.NewLoggers(child.HostEnviron())
	sd.RegisterCallback(logs.End)
	// Not left to the library: that does it when the last event is delivered,
	// and by the bundle, which containerd may have removed by then.
	serves, err := containerd.ReadAddress(addressFile)
	if err != nil {
		return nil, fmt.Errorf("read the shim's own address: %w", err)
	}
	own, err := socketAt(serves)
	if err != nil {
		return nil, fmt.Errorf("find the shim's own socket: %w", err)
	}
	sd.RegisterCallback(func(context.Context) error { return own.remove() })
	// Out of the bundle of the first container: containerd removes it while
	// others of the group live, and libcontainer cannot do without a working
	// directory.
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	if err := os.Setenv("GOMAXPROCS", child.InitProcessors); err != nil {
		return nil, err
	}
	debug.SetGCPercent(collectAt)
	// An error is told by the first Create that needs one of them, which tries
	// again.
	pinned := &programs{}
	_ = pinned.pin()
	return &service{
		namespace:  namespace,
		events:     ev,
		children:   child.New(),
		loggers:    logs,
		programs:   pinned,
		shutdown:   sd,
		rest:       newRest(),
		containers: map[string]*container{},
		creations:  map[string]*creation{},
	}, nil
}

// RegisterTTRPC makes the service known to the server, for all versions of
// containerd.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	task.RegisterTTRPCTaskService(server, s)
	s.registerV2(server)
	return nil
}

// reserve keeps an id for a container that is being created, until ctx that it
// returns has ended: with the request, or as somebody gives up the container.
func (s *service) reserve(ctx context.Context, id string) (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return nil, fmt.Errorf("the shim is ending: %w", errdefs.ErrUnavailable)
	}
	if _, ok := s.containers[id]; ok {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	s.containers[id] = nil
	s.creations[id] = &creation{giveUp: giveUp, over: make(chan struct{})}
	return ctx, nil
}

// put ends a creation. If nobody waits for it any more, that is an error.
func (s *service) put(ctx context.Context, id string, c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := givenUp(ctx); err != nil {
		return err
	}
	s.containers[id] = c
	s.leave = false
	s.endCreation(id)
	return nil
}

// drop forgets a container that has been removed, or one whose creation has
// failed and is reverted.
func (s *service) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
	s.endCreation(id)
	if s.leave && len(s.containers) == 0 {
		// The answer to the Create that has failed is to get out first.
		time.AfterFunc(answerTime, s.end)
	}
}

// answerTime is how long an answer may take to be sent.
const answerTime = 100 * time.Millisecond

// endCreation ends a creation if it goes on. The caller holds mu.
func (s *service) endCreation(id string) {
	if going := s.creations[id]; going != nil {
		going.giveUp(nil)
		close(going.over)
		delete(s.creations, id)
	}
}

// end ends the shim, unless it has containers.
func (s *service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) == 0 {
		s.left = true
		s.shutdown.Shutdown()
	}
}

// errGivenUp is why a creation ends whose container somebody removes.
var errGivenUp = fmt.Errorf("the container is not wanted any more: %w", context.Canceled)

// revertWait bounds how long is waited for the end of a creation: containerd
// gives Delete and Shutdown 5 s together.
const revertWait = 2 * time.Second

// giveUp ends a creation if it goes on, and waits until all is reverted.
// Otherwise who cleans up after it would find it still at work.
func (s *service) giveUp(ctx context.Context, id string) {
	s.mu.Lock()
	going := s.creations[id]
	s.mu.Unlock()
	if going == nil {
		return
	}
	going.giveUp(errGivenUp)
	select {
	case <-going.over:
	case <-time.After(revertWait):
	case <-ctx.Done():
	}
}

// givenUp returns an error if nobody waits for a creation any more.
func givenUp(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("create was given up: %w", context.Cause(ctx))
}

func (s *service) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
}

// find returns a container and its init, if execID is empty, or one of its
// execs.
func (s *service) find(id, execID string) (*container, *process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.process(execID)
	return c, p, err
}

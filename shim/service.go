package shim

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"sync"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

var empty = &emptypb.Empty{}

// service is containerd's task service, version 3. Each verb has a file.
type service struct {
	namespace string
	events    *events
	children  *children
	shutdown  shutdown.Service
	rest      rest

	mu         sync.Mutex
	containers map[string]*container // nil while the container is being created
}

var _ task.TTRPCTaskService = (*service)(nil)

func newService(ctx context.Context, address string, sd shutdown.Service) (*service, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	ev, err := newEvents(namespace, address)
	if err != nil {
		return nil, fmt.Errorf("connect to containerd's events: %w", err)
	}
	sd.RegisterCallback(ev.close)
	// The library removes the socket as well, but reads its address only
	// then, and by that time containerd may have removed the bundle.
	socket, err := containerd.ReadAddress(addressFile)
	if err != nil {
		return nil, fmt.Errorf("read the shim's own address: %w", err)
	}
	sd.RegisterCallback(func(context.Context) error { return containerd.RemoveSocket(socket) })
	// Out of the bundle of the first container: containerd removes it while
	// others of the group live, and libcontainer cannot do without a working
	// directory.
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	if err := os.Setenv("GOMAXPROCS", initProcessors); err != nil {
		return nil, err
	}
	debug.SetGCPercent(collectAt)
	awaitGrace() // containerd starts a shim to create a container
	return &service{
		namespace:  namespace,
		events:     ev,
		children:   newChildren(),
		shutdown:   sd,
		containers: map[string]*container{},
	}, nil
}

// RegisterTTRPC makes the service known to the server, for all versions of
// containerd.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	task.RegisterTTRPCTaskService(server, s)
	s.registerV2(server)
	return nil
}

// reserve keeps an id for a container that is being created.
func (s *service) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return fmt.Errorf("container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.containers[id] = nil
	return nil
}

func (s *service) put(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[id] = c
}

func (s *service) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
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

package shim

import (
	"context"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/containerd/v2/pkg/ttrpcutil"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// retryMin and retryMax bound the pause after a failed try.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// events delivers events to containerd in the order in which they are
// added. While containerd is away they wait: it must learn of every exit.
type events struct {
	namespace string
	client    *ttrpcutil.Client

	mu      sync.Mutex
	queue   []*types.Envelope
	pending chan struct{} // has an item while the queue is not empty
	closed  chan struct{}
	drained chan struct{}
}

func newEvents(namespace, address string) (*events, error) {
	e := &events{
		namespace: namespace,
		pending:   make(chan struct{}, 1),
		closed:    make(chan struct{}),
		drained:   make(chan struct{}),
	}
	var err error
	if e.client, err = ttrpcutil.NewClient(address); err != nil {
		return nil, err
	}
	go e.run()
	return e, nil
}

// add queues an event. It never blocks.
func (e *events) add(event any) {
	body, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		log.L.WithError(err).Errorf("marshal event %T", event)
		return
	}
	e.mu.Lock()
	e.queue = append(e.queue, &types.Envelope{
		Timestamp: protobuf.ToTimestamp(time.Now()),
		Namespace: e.namespace,
		Topic:     topic(event),
		Event:     body,
	})
	e.mu.Unlock()
	select {
	case e.pending <- struct{}{}:
	default:
	}
}

// close delivers what is queued, until ctx ends.
func (e *events) close(ctx context.Context) error {
	close(e.closed)
	select {
	case <-e.drained:
	case <-ctx.Done():
	}
	return e.client.Close()
}

func (e *events) run() {
	defer close(e.drained)
	pause := retryMin
	for {
		e.mu.Lock()
		var next *types.Envelope
		if len(e.queue) > 0 {
			next = e.queue[0]
		}
		e.mu.Unlock()
		if next == nil {
			select {
			case <-e.pending:
				continue
			case <-e.closed:
			}
			// An event may have been added just before the end.
			e.mu.Lock()
			empty := len(e.queue) == 0
			e.mu.Unlock()
			if empty {
				return
			}
			continue
		}
		err := e.forward(next)
		if err != nil && refused(err) {
			log.L.WithError(err).WithField("topic", next.Topic).Error("containerd refused an event")
			err = nil
		}
		if err != nil {
			log.L.WithError(err).WithField("topic", next.Topic).Warn("deliver event, will try again")
			select {
			case <-time.After(pause):
			case <-e.closed:
				// containerd ended this shim while it is away itself:
				// nobody is left to tell.
				return
			}
			pause = min(2*pause, retryMax)
			continue
		}
		pause = retryMin
		e.mu.Lock()
		e.queue[0] = nil
		e.queue = e.queue[1:]
		e.mu.Unlock()
	}
}

// forward tries to deliver an event, over a new connection if the one there
// is fails: after a restart containerd listens on a new socket.
func (e *events) forward(env *types.Envelope) error {
	err := e.try(env)
	if err == nil || refused(err) {
		return err
	}
	if err := e.client.Reconnect(); err != nil {
		return err
	}
	return e.try(env)
}

func (e *events) try(env *types.Envelope) error {
	service, err := e.client.EventsService()
	if err != nil {
		return err
	}
	// Without a time limit: a containerd that is only slow has the event
	// already, and would get it twice. One that has gone closes the connection.
	_, err = service.Forward(context.Background(), &ttrpcevents.ForwardRequest{Envelope: env})
	return err
}

// refused reports whether containerd has taken note of an event and does not
// want it. Trying again would only hold up the events behind it.
func refused(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() != codes.Unavailable && s.Code() != codes.DeadlineExceeded && s.Code() != codes.Canceled
}

// topic names the subject of an event as containerd's documentation of
// runtime v2 does.
func topic(event any) string {
	switch event.(type) {
	case *eventstypes.TaskCreate:
		return runtime.TaskCreateEventTopic
	case *eventstypes.TaskStart:
		return runtime.TaskStartEventTopic
	case *eventstypes.TaskOOM:
		return runtime.TaskOOMEventTopic
	case *eventstypes.TaskExit:
		return runtime.TaskExitEventTopic
	case *eventstypes.TaskDelete:
		return runtime.TaskDeleteEventTopic
	case *eventstypes.TaskExecAdded:
		return runtime.TaskExecAddedEventTopic
	case *eventstypes.TaskExecStarted:
		return runtime.TaskExecStartedEventTopic
	case *eventstypes.TaskPaused:
		return runtime.TaskPausedEventTopic
	case *eventstypes.TaskResumed:
		return runtime.TaskResumedEventTopic
	default:
		return runtime.TaskUnknownTopic
	}
}

package event

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
	// maxMinor bounds how many events of a container wait that it can bring
	// about itself, as often as it likes. The rest says nothing new.
	maxMinor = 16
)

// queued is an event that waits. minor is the container that has brought it
// about by itself, empty for all other events.
type queued struct {
	*types.Envelope
	minor string
}

// Queue delivers events to containerd in the order in which they are
// added. While containerd is away they wait: it must learn of every exit.
type Queue struct {
	namespace string
	client    *ttrpcutil.Client

	mu      sync.Mutex
	queue   []queued
	minors  map[string]int // minor events in the queue, by container
	pending chan struct{}  // has an item while the queue is not empty
	closed  chan struct{}  // no more events will be added
	gaveUp  chan struct{}  // what is still queued will not be delivered
	drained chan struct{}
}

// NewQueue delivers the events of a namespace to the containerd whose ttrpc
// address is given, until Close.
func NewQueue(namespace, address string) (*Queue, error) {
	e := &Queue{
		namespace: namespace,
		minors:    map[string]int{},
		pending:   make(chan struct{}, 1),
		closed:    make(chan struct{}),
		gaveUp:    make(chan struct{}),
		drained:   make(chan struct{}),
	}
	var err error
	if e.client, err = ttrpcutil.NewClient(address); err != nil {
		return nil, err
	}
	go e.run()
	return e, nil
}

// Add queues an event. It never blocks.
func (e *Queue) Add(event any) { e.queueFor("", event) }

// AddMinor queues an event that a container can bring about by itself, unless
// containerd is away and has too many of them to come.
func (e *Queue) AddMinor(container string, event any) { e.queueFor(container, event) }

func (e *Queue) queueFor(minor string, event any) {
	body, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		log.L.WithError(err).Errorf("marshal event %T", event)
		return
	}
	e.mu.Lock()
	if minor != "" {
		if e.minors[minor] == maxMinor {
			e.mu.Unlock()
			return
		}
		e.minors[minor]++
	}
	e.queue = append(e.queue, queued{minor: minor, Envelope: &types.Envelope{
		Timestamp: protobuf.ToTimestamp(time.Now()),
		Namespace: e.namespace,
		Topic:     topic(event),
		Event:     body,
	}})
	e.mu.Unlock()
	select {
	case e.pending <- struct{}{}:
	default:
	}
}

// Close delivers what is queued, until ctx ends.
func (e *Queue) Close(ctx context.Context) error {
	close(e.closed)
	select {
	case <-e.drained:
	case <-ctx.Done():
		close(e.gaveUp)
	}
	return e.client.Close()
}

func (e *Queue) run() {
	defer close(e.drained)
	pause, closed := retryMin, e.closed
	for {
		e.mu.Lock()
		var next *types.Envelope
		if len(e.queue) > 0 {
			next = e.queue[0].Envelope
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
				pause = min(2*pause, retryMax)
			case <-closed:
				// Whoever ends this shim is most likely containerd, and so
				// it is back.
				pause, closed = retryMin, nil
			case <-e.gaveUp:
				return
			}
			continue
		}
		pause = retryMin
		e.mu.Lock()
		if minor := e.queue[0].minor; minor != "" {
			if e.minors[minor]--; e.minors[minor] == 0 {
				delete(e.minors, minor)
			}
		}
		e.queue[0] = queued{}
		e.queue = e.queue[1:]
		e.mu.Unlock()
	}
}

// forward tries to deliver an event, over a new connection if the one there
// is fails: after a restart containerd listens on a new socket.
func (e *Queue) forward(env *types.Envelope) error {
	err := e.try(env)
	if err == nil || refused(err) {
		return err
	}
	if err := e.client.Reconnect(); err != nil {
		return err
	}
	return e.try(env)
}

func (e *Queue) try(env *types.Envelope) error {
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

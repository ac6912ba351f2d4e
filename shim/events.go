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
)

const (
	// forwardTimeout bounds one try to deliver an event.
	forwardTimeout = 5 * time.Second
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
		if err := e.forward(next); err != nil {
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

func (e *events) forward(env *types.Envelope) error {
	service, err := e.client.EventsService()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
		_, err = service.Forward(ctx, &ttrpcevents.ForwardRequest{Envelope: env})
		cancel()
	}
	if err == nil {
		return nil
	}
	// Whatever it was, the connection cannot be trusted any more; after a
	// restart containerd listens on a new socket.
	if rerr := e.client.Reconnect(); rerr != nil {
		return rerr
	}
	if service, err = e.client.EventsService(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
	defer cancel()
	_, err = service.Forward(ctx, &ttrpcevents.ForwardRequest{Envelope: env})
	return err
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

package event

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

// eventSink is containerd's side of the queue.
type eventSink struct {
	got    chan string
	refuse string
}

func (s *eventSink) Forward(_ context.Context, r *ttrpcevents.ForwardRequest) (*emptypb.Empty, error) {
	v, err := typeurl.UnmarshalAny(r.Envelope.Event)
	if err != nil {
		return nil, err
	}
	id := v.(*eventstypes.TaskOOM).ContainerID
	s.got <- id
	if id == s.refuse {
		return nil, errgrpc.ToGRPC(errdefs.ErrInvalidArgument)
	}
	return &emptypb.Empty{}, nil
}

// eventSession is a containerd from its start to its end. A call that it has
// not got to by then is lost, as it is with a process.
type eventSession struct {
	*eventSink
	over atomic.Bool
}

func (s *eventSession) Forward(ctx context.Context, r *ttrpcevents.ForwardRequest) (*emptypb.Empty, error) {
	if s.over.Load() {
		return nil, context.Canceled
	}
	return s.eventSink.Forward(ctx, r)
}

// serve answers at path until the test or the returned function ends it.
func (s *eventSink) serve(t *testing.T, path string) func() {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	session := &eventSession{eventSink: s}
	ttrpcevents.RegisterTTRPCEventsService(server, session)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(context.Background(), l)
	}()
	return func() {
		session.over.Store(true)
		_ = server.Close()
		<-done
	}
}

// Events arrive in their order, and none is lost, also when one is refused and when
// containerd is away for a while.
func TestEventsOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	sink := &eventSink{got: make(chan string, 16), refuse: "b"}
	stop := sink.serve(t, path)
	e, err := NewQueue("ns", path)
	if err != nil {
		t.Fatal(err)
	}
	add := func(ids ...string) {
		for _, id := range ids {
			e.Add(&eventstypes.TaskOOM{ContainerID: id})
		}
	}
	var got []string
	until := func(last string) {
		t.Helper()
		for len(got) == 0 || got[len(got)-1] != last {
			select {
			case id := <-sink.got:
				got = append(got, id)
			case <-time.After(30 * time.Second):
				t.Fatalf("only %q arrived", got)
			}
		}
	}
	add("a", "b", "c")
	until("c")
	stop()
	add("d", "e")
	stop = sink.serve(t, path)
	defer func() { stop() }()
	until("e")
	add("f")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	until("f")
	// One whose answer was lost comes again.
	got = slices.Compact(got)
	if want := []string{"a", "b", "c", "d", "e", "f"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// containerd may end a shim that is still waiting for it to come back: it is back then.
func TestEventsEndAfterPause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	e, err := NewQueue("ns", path)
	if err != nil {
		t.Fatal(err)
	}
	// Refused at once, unlike a socket that is not there.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	e.Add(&eventstypes.TaskOOM{ContainerID: "a"})
	time.Sleep(10 * retryMin) // it has failed a few times
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	sink := &eventSink{got: make(chan string, 16)}
	defer sink.serve(t, path)()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	if len(sink.got) == 0 {
		t.Error("the event was not delivered")
	}
}

// Without containerd a shim ends all the same.
func TestEventsEndAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := NewQueue("ns", path)
	if err != nil {
		t.Fatal(err)
	}
	e.Add(&eventstypes.TaskOOM{ContainerID: "a"})
	ctx, cancel := context.WithTimeout(context.Background(), retryMin)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-e.drained:
	case <-time.After(30 * time.Second):
		t.Error("it still tries")
	}
}

// While containerd is away, what a container brings about by itself waits only up to a bound, of each container; nothing
// else is lost by that.
func TestT18QueueWhileContainerdIsAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	e, err := NewQueue("ns", path)
	if err != nil {
		t.Fatal(err)
	}
	for range 10000 {
		e.AddMinor("loud", &eventstypes.TaskOOM{ContainerID: "loud"})
	}
	e.AddMinor("quiet", &eventstypes.TaskOOM{ContainerID: "quiet"})
	for range 100 {
		e.Add(&eventstypes.TaskOOM{ContainerID: "end"})
	}
	e.mu.Lock()
	if len(e.queue) != maxMinor+1+100 {
		t.Errorf("%d events wait", len(e.queue))
	}
	e.mu.Unlock()
	sink := &eventSink{got: make(chan string, 1000)}
	defer sink.serve(t, path)()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	close(sink.got)
	got := map[string]int{}
	for id := range sink.got {
		got[id]++
	}
	if got["end"] != 100 || got["quiet"] != 1 || got["loud"] < 1 || got["loud"] > maxMinor+1 {
		t.Errorf("got %v", got)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.minors) != 0 {
		t.Errorf("still counted: %v", e.minors)
	}
}

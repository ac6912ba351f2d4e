package integration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"
)

// event is one event of containerd about a container.
type event struct {
	Topic string
	// Event is the decoded message, for example *events.TaskExit.
	Event any
}

// eventLog collects the events of one container in the order containerd published them.
type eventLog struct {
	t    testing.TB
	id   string
	lock sync.Mutex
	all  []event
	err  error
}

// subscribe collects the events of the container id from now until the end of the test. Call it before newTask, with withID.
func subscribe(t testing.TB, id string) *eventLog {
	t.Helper()
	return private.subscribe(t, id)
}

func (d *daemon) subscribe(t testing.TB, id string) *eventLog {
	t.Helper()
	ctx, cancel := context.WithCancel(d.context())
	t.Cleanup(cancel)
	messages, errs := d.Client.Subscribe(ctx, fmt.Sprintf("namespace==%s,topic~=^/tasks/", testNamespace))
	log := &eventLog{t: t, id: id}
	go func() {
		for {
			select {
			case message := <-messages:
				decoded, err := typeurl.UnmarshalAny(message.Event)
				log.add(event{Topic: message.Topic, Event: decoded}, err)
			case err := <-errs:
				if ctx.Err() == nil {
					log.add(event{}, err)
				}
				return
			}
		}
	}()
	return log
}

func (l *eventLog) add(e event, err error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if err != nil {
		l.err = err
		return
	}
	if about, ok := e.Event.(interface{ GetContainerID() string }); ok && about.GetContainerID() == l.id {
		l.all = append(l.all, e)
	}
}

// Events returns what came so far.
func (l *eventLog) Events() []event {
	l.t.Helper()
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.err != nil {
		l.t.Fatalf("events: %v", l.err)
	}
	return slices.Clone(l.all)
}

// WaitCrash waits for the event of the crash of a service, and checks its status.
func (l *eventLog) WaitCrash(service string, status uint32, limit time.Duration) {
	l.t.Helper()
	eventually(l.t, limit, "event of the crash of "+service, func() error {
		for _, e := range l.Events() {
			if exit, ok := e.Event.(*events.TaskExit); ok && exit.ID == "service:"+service {
				if exit.ExitStatus != status {
					l.t.Errorf("the event of %s says %d, want %d", service, exit.ExitStatus, status)
				}
				return nil
			}
		}
		return fmt.Errorf("have %v", l.Events())
	})
}

// Topics returns the topics that came so far.
func (l *eventLog) Topics() []string {
	l.t.Helper()
	var topics []string
	for _, e := range l.Events() {
		topics = append(topics, e.Topic)
	}
	return topics
}

// Wait waits for the first event of a topic and returns its message. Of the exits it is the task's, and no other process's.
func (l *eventLog) Wait(topic string, limit time.Duration) any {
	l.t.Helper()
	var found any
	eventually(l.t, limit, "event "+topic, func() error {
		for _, e := range l.Events() {
			exit, ok := e.Event.(*events.TaskExit)
			if e.Topic == topic && (!ok || exit.ID == l.id) {
				found = e.Event
				return nil
			}
		}
		return fmt.Errorf("have %v", l.Topics())
	})
	return found
}

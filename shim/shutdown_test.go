package shim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
)

// ends notes that it was asked to shut down.
type ends struct {
	shutdown.Service
	asked bool
}

func (e *ends) Shutdown() { e.asked = true }

// creator is a service and what Create does to it.
type creator struct {
	*service
	*ends
	*testing.T
}

func (c creator) reserved(id string) context.Context {
	c.Helper()
	ctx, err := c.reserve(context.Background(), id)
	if err != nil {
		c.Fatal(err)
	}
	return ctx
}

func (c creator) asks(id string) {
	c.Helper()
	if _, err := c.service.Shutdown(context.Background(), &task.ShutdownRequest{ID: id}); err != nil {
		c.Fatal(err)
	}
}

func (c creator) ended(want bool) {
	c.Helper()
	time.Sleep(answerTime + time.Second)
	synctest.Wait()
	if c.asked != want {
		c.Errorf("the shim ends: %v, want %v", c.asked, want)
	}
}

// A shim that was asked to end while containers were being created does so
// when none of them is left.
func TestShutdownWhileCreating(t *testing.T) {
	for name, test := range map[string]func(c creator){
		"nothing": func(c creator) {
			c.asks("a")
			c.ended(true)
			if _, err := c.reserve(context.Background(), "b"); !errdefs.IsUnavailable(err) {
				c.Errorf("a container was taken by a shim that ends: %v", err)
			}
		},
		"creation fails": func(c creator) {
			c.reserved("a")
			c.asks("other")
			c.ended(false)
			c.drop("a")
			c.ended(true)
		},
		"creation is given up": func(c creator) {
			ctx := c.reserved("a")
			c.asks("a")
			if !errors.Is(context.Cause(ctx), errGivenUp) {
				c.Errorf("it goes on: %v", context.Cause(ctx))
			}
			if err := c.put(ctx, "a", &container{}); !errors.Is(err, errGivenUp) {
				c.Errorf("it succeeds: %v", err)
			}
			c.ended(false)
			c.drop("a")
			c.ended(true)
		},
		"one of two succeeds": func(c creator) {
			c.reserved("a")
			ctx := c.reserved("b")
			c.asks("other")
			c.drop("a")
			if err := c.put(ctx, "b", &container{}); err != nil {
				c.Error(err)
			}
			c.ended(false)
			c.drop("b")
			c.ended(false) // it is asked for again
			c.asks("b")
			c.ended(true)
		},
		"another container lives": func(c creator) {
			if err := c.put(c.reserved("a"), "a", &container{}); err != nil {
				c.Error(err)
			}
			c.reserved("b")
			c.asks("b")
			c.drop("b")
			c.ended(false)
			c.drop("a")
			c.ended(false)
		},
		"a new one comes meanwhile": func(c creator) {
			c.reserved("a")
			c.asks("other")
			c.drop("a")
			c.reserved("b")
			c.ended(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ends{}
				test(creator{&service{shutdown: e, containers: map[string]*container{}, creations: map[string]*creation{}}, e, t})
			})
		})
	}
}

// Delete waits for the end of a creation that it gives up, but not for long.
func TestDeleteWhileCreating(t *testing.T) {
	for name, reverts := range map[string]time.Duration{"reverted": time.Second, "stuck": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{shutdown: &ends{}, containers: map[string]*container{}, creations: map[string]*creation{}}
				ctx, err := s.reserve(context.Background(), "a")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					<-ctx.Done()
					time.Sleep(reverts)
					s.drop("a")
				}()
				began := time.Now()
				if _, err := s.Delete(context.Background(), &task.DeleteRequest{ID: "a"}); err == nil {
					t.Error("it was deleted")
				}
				if took := time.Since(began); took != min(reverts, revertWait) {
					t.Errorf("it took %v", took)
				}
				time.Sleep(reverts)
			})
		})
	}
}

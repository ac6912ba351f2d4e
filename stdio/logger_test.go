package stdio

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A logging program that does not become ready is given up in time, and killed.
func TestLoggerNeverReady(t *testing.T) {
	limit := openLimit
	t.Cleanup(func() { openLimit = limit })
	program := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	errCalled := errors.New("called off")
	for name, c := range map[string]struct {
		ctx   func() (context.Context, context.CancelFunc)
		limit time.Duration
		word  string
	}{
		"no limit": {func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, 300 * time.Millisecond, "not within 300ms"},
		"a limit": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 200*time.Millisecond)
		}, time.Minute, "deadline exceeded"},
		"given up": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(100*time.Millisecond, func() { cancel(errCalled) })
			return ctx, func() { cancel(nil) }
		}, time.Minute, errCalled.Error()},
	} {
		for _, scheme := range []string{"binary", "binary-v2"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				openLimit = c.limit
				ctx, cancel := c.ctx()
				defer cancel()
				began := time.Now()
				_, err := Open(ctx, Names{Stdout: scheme + "://" + program}, Owner{ID: "id", Namespace: "ns", Loggers: NewLoggers(os.Environ())}, false)
				if err == nil || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), program) {
					t.Errorf("got %v, want that it says %q", err, c.word)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

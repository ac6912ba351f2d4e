package main

import (
	"context"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"containerd-shim-rich/integration/containerdtest"
)

const (
	namespace = "bench"
	// limit bounds a single wait, so that a hanging peer ends the run.
	limit = 2 * time.Minute
)

// newDaemon makes a containerd to be started. It does not see the mount hidden,
// if there is one.
func newDaemon(build, hidden string) (*containerdtest.Daemon, error) {
	return containerdtest.New(containerdtest.Settings{
		Group:   "rich-bench",
		Program: filepath.Join(build, "tools/containerd"), ConfigVersion: 4, LogLevel: "warn",
		Path:   []string{filepath.Join(build, "bin"), filepath.Join(build, "suites/programs")},
		Images: filepath.Join(build, "images"), StateInMemory: true, Hidden: hidden, Limit: limit,
	})
}

func (b *bench) context() context.Context {
	return namespaces.WithNamespace(context.Background(), namespace)
}

// image returns an image of the build folder, unpacked at its first use.
func (b *bench) image(name string) (containerd.Image, error) {
	return b.Image(b.context(), name)
}

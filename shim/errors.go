package shim

import (
	"errors"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// toRPC gives an error the class that containerd's clients act on. It is the
// only place that does, at the edge of the service.
func toRPC(err error) error {
	switch {
	case err == nil:
		return nil
	case isOver(err):
		err = withClass(err, errdefs.ErrNotFound)
	case errors.Is(err, libcontainer.ErrExist):
		err = withClass(err, errdefs.ErrAlreadyExists)
	case errors.Is(err, libcontainer.ErrPaused), errors.Is(err, libcontainer.ErrNotPaused), errors.Is(err, libcontainer.ErrRunning):
		err = withClass(err, errdefs.ErrFailedPrecondition)
	case errors.Is(err, libcontainer.ErrInvalidID):
		err = withClass(err, errdefs.ErrInvalidArgument)
	}
	// Flat, as containerd would print the parts of a tree one by one.
	return errgrpc.ToGRPC(flat{err, errdefs.Resolve(err)})
}

// isOver reports whether an error says that what it is about has ended.
func isOver(err error) bool {
	for _, over := range []error{libcontainer.ErrNotRunning, libcontainer.ErrNotExist, os.ErrProcessDone, unix.ESRCH} {
		if errors.Is(err, over) {
			return true
		}
	}
	return false
}

// flat is an error's text with the one class that counts.
type flat struct {
	error
	class error
}

func (f flat) Unwrap() error { return f.class }

// classified keeps an error's own text and adds a class to it.
type classified struct {
	error
	class error
}

func withClass(err, class error) error { return classified{err, class} }

func (c classified) Unwrap() []error { return []error{c.class, c.error} }

package shim

import (
	"runtime"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
)

// maxStarters bounds how many execs of one container are started at once:
// more than the host has processors only wait for each other.
var maxStarters = min(runtime.NumCPU(), processors)

// starters are the handles by which a container's execs are started. A handle
// of libcontainer is locked over the whole start of a process, and its lock is
// fair: with one, hundreds of execs would take turns, and a signal would have
// to wait behind them all. So further ones are loaded while they are needed.
type starters struct {
	own   *libcontainer.Container
	load  func() (*libcontainer.Container, error)
	turns chan struct{}

	mu    sync.Mutex
	users int
	idle  []*libcontainer.Container // own is the first, if it is idle
}

func newStarters(own *libcontainer.Container, load func() (*libcontainer.Container, error)) *starters {
	return &starters{own: own, load: load, turns: make(chan struct{}, maxStarters), idle: []*libcontainer.Container{own}}
}

// with calls start with a handle that nobody else starts a process by.
func (s *starters) with(start func(*libcontainer.Container) error) error {
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	s.mu.Lock()
	s.users++
	var handle *libcontainer.Container
	if n := len(s.idle); n > 0 {
		handle, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	var err error
	if handle == nil {
		handle, err = s.load()
	}
	if err == nil {
		err = start(handle)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	switch {
	case s.users == 0:
		s.idle = []*libcontainer.Container{s.own} // the others may go
	case handle == s.own:
		s.idle = append([]*libcontainer.Container{handle}, s.idle...)
	case handle != nil:
		s.idle = append(s.idle, handle)
	}
	return err
}

package cgroup

import (
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
)

// graceWaits has 1 while a goroutine of awaitGrace waits.
var graceWaits atomic.Int32

// AwaitGrace begins, in the background, the wait that the next move of a
// process to another cgroup would have to go through.
//
// Such a move takes a lock that all forks and exits of the host share
// (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c). Who takes it first
// waits for a grace period of RCU, which on an idle host are 7 to 20 ms, half
// of an exec; who takes it soon afterwards does not
// (rcu_sync_enter in kernel/rcu/sync.c). So it is taken while the container is
// still being prepared, by a move that changes nothing: of this process to
// the cgroup where it is. It may fail, and then nothing is lost but time. A
// new shim has begun before its Go runtime did
// (cmd/containerd-shim-rich-v2/grace.c).
func AwaitGrace() {
	if !graceWaits.CompareAndSwap(0, 1) {
		return
	}
	go func() {
		defer graceWaits.Store(0)
		if dir, err := ownCgroup(); err == nil {
			_ = cgroups.WriteCgroupProc(dir, os.Getpid())
		}
	}()
}

// ownCgroup is this process's cgroup in any one hierarchy.
func ownCgroup() (string, error) {
	if !Unified() {
		return cgroups.GetOwnCgroupPath("devices") // libcontainer needs that one
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return filepath.Join(fs2.UnifiedMountpoint, own[""]), nil
}

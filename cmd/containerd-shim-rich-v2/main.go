// Command containerd-shim-rich-v2 is a containerd runtime shim for rich
// containers. containerd starts it by the name io.containerd.rich.v2.
package main

// #include "detach.h"
import "C"

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"

	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters namespaces before the Go runtime starts

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/hooks"
	"containerd-shim-rich/shim"
)

// libcontainer starts this very program again, as "init", inside the
// container. That has to be caught before anything parses flags.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
	// libcontainer has goroutines that enter a container's mount namespace
	// and then leave their thread to be destroyed. Go cannot do that to the
	// main thread: it would stay in the container for good, and with it
	// /proc/self, which is the main thread's view. So main keeps that thread
	// to itself.
	runtime.LockOSThread()
}

func main() {
	if done, status := hooks.RunCommand(os.Args[1:]); done {
		os.Exit(status)
	}
	if cgroup.Hold(os.Args[1:]) {
		return
	}
	// The library would print the version of containerd.
	if slices.Contains([]string{"-v", "-version", "--version"}, append(os.Args, "")[1]) {
		fmt.Println("containerd-shim-rich-v2", shim.Version)
		return
	}
	if shim.Starts(os.Args) {
		serve, err := shim.Bootstrap(os.Args, C.DETACH_LISTENER)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s\n", shim.RuntimeName, err)
			os.Exit(1)
		}
		if serve == nil {
			return
		}
		if _, err := C.detach_done(); err != nil {
			os.Exit(1) // stderr is closed, and whoever waits sees the status
		}
		os.Args = serve
	}
	containerd.RunShim(context.Background(), shim.NewManager(), func(c *containerd.Config) {
		// Every process is waited for by its owner: a reaper that waits
		// for any child would steal libcontainer's.
		c.NoReaper = true
		c.NoSubreaper = true
	})
}

// Package shim is containerd's task service for rich containers. It drives
// libcontainer in its own process.
//
// Every process it starts is a direct child that one goroutine waits for, so
// there is no reaper and an exit cannot be missed: a zombie keeps until its
// owner is ready for it. All events pass through one queue in the order in
// which they are added.
package shim

// Version of this program, set when it is built.
var Version = "unknown"

// RuntimeName is how containerd's clients name this runtime.
const RuntimeName = "io.containerd.rich.v2"

// Package shim is containerd's task service for rich containers. It drives
// libcontainer in its own process. docs/architecture.md says which package does
// what for it.
package shim

// Version of this program, set when it is built.
var Version = "unknown"

// RuntimeName is how containerd's clients name this runtime.
const RuntimeName = "io.containerd.rich.v2"

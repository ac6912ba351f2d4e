package child

import (
	"os"
	"slices"
	"strings"
)

// InitProcessors is the GOMAXPROCS of libcontainer's init, which takes it
// from the shim's environment. That init does one thing after the other in a
// few milliseconds: with more it only makes more threads and caches, at the
// start of every container and exec.
const InitProcessors = "1"

// HostEnviron is the shim's environment for programs of the host.
func HostEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
}

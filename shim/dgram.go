package shim

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
)

// sharesNetwork reports whether the network namespace of a container is the one
// that the shim is in, which is the host's: the spec has none, or names that very
// one, as in a pod with hostNetwork.
func sharesNetwork(spec *specs.Spec) (bool, error) {
	if spec.Linux == nil {
		return true, nil
	}
	ns := initmode.Namespace(spec, specs.NetworkNamespace)
	if ns == nil || ns.Path == "" {
		return ns == nil, nil
	}
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return false, fmt.Errorf("stat /proc/self/ns/net: %w", err)
	}
	if err := unix.Stat(ns.Path, &other); err != nil {
		return false, fmt.Errorf("linux.namespaces: network: path %q: %w; name a namespace that is there: %w", ns.Path, err, errdefs.ErrInvalidArgument)
	}
	return own.Dev == other.Dev && own.Ino == other.Ino, nil
}

// dgramQueueShort reports whether datagram sockets in the network namespace of
// a container, which is not the host's, queue less than an init expects.
func dgramQueueShort(spec *specs.Spec) (bool, error) {
	ns := initmode.Namespace(spec, specs.NetworkNamespace)
	if ns.Path == "" {
		return true, nil // a new one has the kernel's default
	}
	length, err := dgramQueueOf(ns.Path)
	return err == nil && length < initmode.DgramQueue, err
}

// dgramQueueOf reads the setting of another network namespace.
func dgramQueueOf(path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	type result struct {
		length int
		err    error
	}
	done := make(chan result)
	go func() {
		// The thread ends with the goroutine, in that namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{0, fmt.Errorf("setns %s: %w", path, err)}
			return
		}
		text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
		if err != nil {
			done <- result{0, err}
			return
		}
		length, err := strconv.Atoi(strings.TrimSpace(string(text)))
		done <- result{length, err}
	}()
	r := <-done
	return r.length, r.err
}

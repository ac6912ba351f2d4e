package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// knownCapabilities returns the mask of the capabilities this kernel has.
func knownCapabilities() (known uint64) {
	for n := range 64 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil {
			break
		}
		known |= 1 << n
	}
	return known
}

// dropBounding takes from the bounding set whatever is not in keep. Without
// CAP_SETPCAP it does nothing, as runc does nothing then: the set is the
// init's, which has not more than the container was given.
func dropBounding(keep uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SETPCAP) == 0 {
		return nil
	}
	for n := range 64 {
		if knownCapabilities()&^keep&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
		}
	}
	return nil
}

// setCapabilities sets the other four sets, of the calling thread.
func setCapabilities(c *launch.Capabilities) error {
	known := knownCapabilities()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := func(set uint64) uint32 { return uint32((set & known) >> (32 * i)) }
		data[i] = unix.CapUserData{
			Effective:   half(c.Effective),
			Permitted:   half(c.Permitted),
			Inheritable: half(c.Inheritable),
		}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}

	// EINVAL: a kernel before 4.3 has no ambient set.
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && err != unix.EINVAL {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for n := range 64 {
		if c.Ambient&known&(1<<n) != 0 {
			// Specs name ambient capabilities that are not inheritable,
			// which the kernel refuses; for runc that is no more than a
			// warning.
			_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0)
		}
	}
	return nil
}

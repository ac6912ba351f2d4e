// Package event delivers a shim's events to containerd, in their order and
// whatever becomes of containerd meanwhile.
package event

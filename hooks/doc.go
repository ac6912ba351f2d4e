// Package hooks runs hooks: those of a container in it, or when it is gone in a
// container of their own; those of its bundle and of the host as the OCI runtime
// specification has it. Each runs once, with a bound, whatever becomes of the
// others and of the shim.
package hooks

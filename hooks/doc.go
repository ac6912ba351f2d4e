// Package hooks is what can be said about hooks without running one: their
// environment and input, why a program cannot be executed, and which of the
// host's hooks are meant for a container.
package hooks

// Package child starts the processes of containers, waits for them, and knows
// what else can be said of a process by its directory in proc(5).
//
// Every process that a shim starts is a direct child that one goroutine waits
// for, so there is no reaper and an exit cannot be missed: a zombie keeps until
// its owner is ready for it.
package child

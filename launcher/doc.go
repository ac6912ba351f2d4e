// Package launcher is the shim's end of what a container says through the
// sockets in its /run/rich: it serves the launchers, which the init starts for
// the command and for each component, and hears how the init is. The messages are
// those of package launch, and what follows from them is for package life to
// decide.
//
// The container's root can send as well. It can lie only about its own container:
// sizes, times and rates are bounded, and nobody waits without a bound for
// anything that is held up there.
package launcher

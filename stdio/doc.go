// Package stdio connects a process's standard streams with what containerd
// names for them: fifos, files and logging programs. It knows terminals, and
// the console of an init.
//
// Who is at the other end may take nothing, for ever, and what a process has
// left behind may write for ever. Therefore each wait here has a bound.
package stdio

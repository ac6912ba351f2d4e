// Package logs bounds what a container can make the host write down: the output
// of its components, wherever that goes, and what is told about it in the log
// of the shim.
package logs

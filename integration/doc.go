// Package integration tests the installed programs against a private containerd with real root file systems.
//
// The harness is in main_test.go (the run), daemon_test.go (containerd), task_test.go (containers),
// events_test.go and host_test.go (what the host must look like afterwards). Run it with "make integration".
package integration

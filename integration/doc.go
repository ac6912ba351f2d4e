// Package integration tests the installed programs against a private containerd with real root file systems.
//
// The harness is in package containerdtest (a private containerd), main_test.go (the run), daemon_test.go (its containerds),
// task_test.go (containers), events_test.go and host_test.go (what the host must look like afterwards). Run it with "make integration".
package integration

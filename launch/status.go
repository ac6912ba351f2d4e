package launch

import "syscall"

// ExitStatus returns the exit status a shell would report: the exit code, or
// 128 plus the number of the signal that ended the process.
func ExitStatus(ws syscall.WaitStatus) uint32 {
	if ws.Signaled() {
		return 128 + uint32(ws.Signal())
	}
	return uint32(ws.ExitStatus())
}

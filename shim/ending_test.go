package shim

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

func code(n int) syscall.WaitStatus                 { return syscall.WaitStatus(n << 8) }
func signalled(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }

func TestEndingStatus(t *testing.T) {
	own := func(status uint32) *launch.Exited { return &launch.Exited{Status: status} }
	asked := func(status uint32) *launch.Exited { return &launch.Exited{Status: status, Requested: true} }
	for _, tc := range []struct {
		name string
		end  ending
		want uint32
	}{
		{"plain process, code", ending{init: code(3)}, 3},
		{"plain process, signal", ending{init: signalled(unix.SIGSEGV)}, 139},
		{"plain process, killed", ending{init: signalled(unix.SIGKILL), killed: true}, 137},
		{"plain process, death by SIGHUP is no reboot", ending{init: signalled(unix.SIGHUP)}, 129},

		{"CMD ended, init halted", ending{full: true, service: true, app: own(42), own: true}, 42},
		{"CMD ended by a signal, init halted with CAP_SYS_BOOT", ending{full: true, service: true, app: own(139), own: true, init: signalled(unix.SIGINT)}, 139},
		{"CMD ended, init killed at the limit", ending{full: true, service: true, app: own(42), own: true, init: signalled(unix.SIGKILL)}, 42},
		{"CMD ended, then SIGKILL for the task", ending{full: true, service: true, app: own(0), own: true, init: signalled(unix.SIGKILL), killed: true}, 0},
		{"CMD ended by itself while the init reboots", ending{full: true, service: true, app: own(1), own: true, reboot: true}, 1},
		{"SIGKILL", ending{full: true, service: true, init: signalled(unix.SIGKILL), killed: true}, 137},
		{"SIGKILL while the CMD was stopped by an operator", ending{full: true, service: true, app: asked(0), init: signalled(unix.SIGKILL), killed: true}, 137},
		{"pid 1 killed from elsewhere", ending{full: true, service: true, init: signalled(unix.SIGKILL)}, 137},
		{"power-off inside", ending{full: true, service: true, app: asked(7)}, 7},
		{"power-off inside with CAP_SYS_BOOT", ending{full: true, service: true, app: asked(143), init: signalled(unix.SIGINT)}, 143},
		{"reboot inside", ending{full: true, service: true, app: asked(7), reboot: true}, 133},
		{"reboot inside with CAP_SYS_BOOT", ending{full: true, service: true, app: asked(7), init: signalled(unix.SIGHUP)}, 133},
		{"kept or restarted, then SIGKILL for the task", ending{full: true, service: true, app: own(42), init: signalled(unix.SIGKILL), killed: true}, 137},
		{"kept or restarted, then stopped", ending{full: true, service: true, app: own(42)}, 42},
		{"kept or restarted, then reboot inside", ending{full: true, service: true, app: own(42), reboot: true}, 133},
		{"kept under dumb-init, which dies of the request to halt", ending{full: true, service: true, app: own(42), init: signalled(unix.SIGTERM)}, 42},
		{"stopped before the CMD was started", ending{full: true, service: true, stop: unix.SIGTERM}, 143},
		{"init ended before the CMD was started", ending{full: true, service: true}, 125},
		{"init failed before the CMD was started", ending{full: true, service: true, init: code(1)}, 1},

		{"CMD is the init, exit 7", ending{full: true, init: code(7)}, 7},
		{"CMD is the init, power-off", ending{full: true}, 0},
		{"CMD is the init, power-off with CAP_SYS_BOOT", ending{full: true, init: signalled(unix.SIGINT)}, 0},
		{"CMD is the init, reboot", ending{full: true, reboot: true}, 133},
		{"CMD is the init, reboot with CAP_SYS_BOOT", ending{full: true, init: signalled(unix.SIGHUP)}, 133},
		{"CMD is the init, reported that it has halted", ending{full: true, init: signalled(unix.SIGKILL), halted: true}, 0},
		{"CMD is the init, reported a reboot and that it has halted", ending{full: true, init: signalled(unix.SIGKILL), halted: true, reboot: true}, 133},
		{"CMD is the init, killed", ending{full: true, init: signalled(unix.SIGKILL), killed: true}, 137},
	} {
		if got := tc.end.status(); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// stageTwo is the verb app starts itself with to become the command: a fork in Go
// cannot run the code below, an own process can. For nobody else.
const stageTwo = "exec"

// stageSocket is the descriptor stageTwo has beside stdio. The record comes
// over it, a Failed goes back, and an exec closes it.
const stageSocket = 3

// execStage becomes the command. It returns the exit status if it cannot.
func execStage() int {
	conn := launch.NewConn(os.NewFile(stageSocket, "stage"), launch.MaxFromShim)
	m, _, err := conn.Receive()
	start, ok := m.(launch.Start)
	if err != nil || !ok {
		return misused()
	}
	code, err := become(&start.Record)
	_ = conn.Send(launch.Failed{Code: code, Reason: err.Error()})
	return int(code)
}

// become turns the process into the command and returns only if it cannot. What
// is done, and in which order, is what runc's init does for a container's
// process, from the place where its root file system is complete; where the
// order is free, what needs descriptors or memory comes before the limits.
func become(r *launch.Record) (code uint32, err error) {
	if len(r.Args) == 0 {
		return exitCannot, errors.New("no program given")
	}
	if err := closeOnExecFrom(stageSocket); err != nil {
		return exitCannot, err
	}
	env, path, err := environment(r.Env, r.UID)
	if err != nil {
		return exitCannot, err
	}
	if slices.ContainsFunc(r.Rlimits, bindsHeap) {
		reserveHeap(r.Args, env)
	}
	if err := prepare(r); err != nil {
		return exitCannot, err
	}
	// With the command's user, root and working directory.
	file, err := lookPath(r.Args[0], path)
	if err != nil {
		return programCode(err), err
	}
	// The mask last: a signal that was held back finds the disposition the
	// command will have.
	defaultSignals()
	if err := clearSignalMask(); err != nil {
		return exitCannot, err
	}
	err = execve(file, r.Args, env)
	if errors.Is(err, unix.ENOENT) {
		// The file was there a moment ago.
		err = fmt.Errorf("its interpreter is missing: %w", err)
	}
	return programCode(err), err
}

// bindsHeap tells whether a limit may keep the heap from growing.
func bindsHeap(l launch.Rlimit) bool {
	return (l.Resource == unix.RLIMIT_AS || l.Resource == unix.RLIMIT_DATA) && l.Soft != unix.RLIM_INFINITY
}

// reserveHeap makes the heap grow to what syscall.Exec copies argv and env
// into, and more. The runtime keeps what it has once got from the kernel.
func reserveHeap(args, env []string) {
	const (
		rest = 512 << 10
		word = 32 // a pointer, and what rounding up to a size class wastes
	)
	size := rest
	for _, s := range slices.Concat(args, env) {
		size += 2*len(s) + word
	}
	runtime.KeepAlive(make([]byte, size))
	runtime.GC()
}

// prepare gives the process everything of the record but argv and env.
func prepare(r *launch.Record) error {
	groups := groupsAllowed()
	if err := setResources(r); err != nil {
		return err
	}
	denied, err := enter(r.Cwd)
	if err != nil {
		return err
	}
	if r.Umask != nil {
		unix.Umask(int(*r.Umask))
	}
	if r.Capabilities != nil {
		if err := dropBounding(r.Capabilities.Bounding); err != nil {
			return err
		}
	}
	if err := changeUser(r, groups, denied); err != nil {
		return err
	}
	if r.Capabilities != nil {
		if err := setCapabilities(r.Capabilities); err != nil {
			return err
		}
	}
	if r.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// changeUser makes the process the command's user's, which keeps the permitted
// capabilities. In its working directory it then is even if that is denied to
// the user the launcher is.
func changeUser(r *launch.Record, groups, denied bool) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set keepcaps: %w", err)
	}
	if err := ownStdio(r.UID); err != nil {
		return err
	}
	if err := setUser(r, groups); err != nil {
		return err
	}
	if denied {
		// A directory on, say, NFS can be closed to root and open to its
		// owner.
		if err := unix.Chdir(r.Cwd); err != nil {
			return fmt.Errorf("change to cwd %s: %w", quote(r.Cwd), err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear keepcaps: %w", err)
	}
	return nil
}

// enter changes to the working directory and makes it if it is missing, mode
// 0755, as the user the launcher is. denied tells that the user the command will
// be has to try.
func enter(cwd string) (denied bool, err error) {
	if cwd == "" {
		return false, nil
	}
	if !filepath.IsAbs(cwd) {
		return false, fmt.Errorf("cwd %s is not an absolute path", quote(cwd))
	}
	err = unix.Chdir(cwd)
	if errors.Is(err, unix.ENOENT) {
		old := unix.Umask(0o022)
		err = os.MkdirAll(cwd, 0o755)
		unix.Umask(old)
		if err != nil {
			return false, fmt.Errorf("make cwd %s: %w", quote(cwd), errors.Unwrap(err))
		}
		err = unix.Chdir(cwd)
	}
	if errors.Is(err, os.ErrPermission) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("change to cwd %s: %w", quote(cwd), err)
	}
	return false, nil
}

// closeOnExecFrom keeps the descriptors from first on from the command. The init
// may have left some open.
func closeOnExecFrom(first uint) error {
	if unix.CloseRange(first, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	// Linux before 5.11, or a seccomp filter that does not know the call.
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, entry := range dir {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= int(first) {
			// EBADF for the descriptor the directory was read with.
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

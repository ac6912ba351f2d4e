package hooks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/child"
)

// inspectTimeout bounds the look at a program: the file system that holds it
// may be the container's own.
const inspectTimeout = 2 * time.Second

// inspectProgram says why the kernel cannot execute a program of a container,
// as a process of it sees its files; nil if no reason is found.
func inspectProgram(process child.Proc, path string) error {
	found := make(chan error, 1)
	go func() {
		root, err := process.Open("root", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			found <- nil // the process is gone
			return
		}
		defer root.Close()
		found <- inspectIn(int(root.Fd()), path)
	}()
	select {
	case err := <-found:
		return err
	case <-time.After(inspectTimeout):
		return nil
	}
}

func inspectIn(root int, path string) error {
	program, err := openProgram(root, path)
	if err != nil {
		return err
	}
	defer program.Close()
	head, err := io.ReadAll(io.LimitReader(program, MaxHead))
	if err != nil {
		return nil
	}
	interpreter, err := Interpreter(head)
	if err != nil || interpreter == "" {
		return err
	}
	by, err := openProgram(root, interpreter)
	if err != nil {
		return fmt.Errorf("its interpreter %q cannot be used: %w", interpreter, err)
	}
	return by.Close()
}

// openProgram opens an executable file below root for reading. Nothing but a
// regular file is opened: opening a device or a fifo could have effects.
func openProgram(root int, path string) (*os.File, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("no such file in the container: %w", os.ErrNotExist)
	case err != nil:
		return nil, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is not a regular file")
	case st.Mode&0o111 == 0:
		return nil, fmt.Errorf("it is not executable (mode %#o); chmod +x", st.Mode&0o7777)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

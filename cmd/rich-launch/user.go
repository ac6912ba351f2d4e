package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// The system calls that change credentials are made raw: those of packages
// syscall and unix change all threads of the process, one signal each, while
// an exec keeps nothing but the thread that calls it.

// groupsAllowed tells whether setgroups(2) is allowed in the process's user
// namespace. It must be called before the user is changed, after which /proc
// may be out of reach.
func groupsAllowed() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return err != nil || string(bytes.TrimSpace(b)) != "deny"
}

// setUser changes the calling thread's groups (unless the user namespace
// forbids that), gid and uid. Who is that user already needs no capability
// (setgid(2), setuid(2)).
func setUser(r *launch.Record, groups bool) error {
	if groups {
		if err := setGroups(r); err != nil {
			return fmt.Errorf("set groups %v: %w", r.Groups, err)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGID, uintptr(r.GID), 0, 0); errno != 0 {
		return fmt.Errorf("set gid %d: %w", r.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETUID, uintptr(r.UID), 0, 0); errno != 0 {
		return fmt.Errorf("set uid %d: %w", r.UID, errno)
	}
	return nil
}

// setGroups sets the supplementary groups. Where the right to do so is
// missing, the groups that the init has given must do.
func setGroups(r *launch.Record) error {
	// With no groups too: the init's own must not stay.
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(r.Groups)), uintptr(unsafe.Pointer(unsafe.SliceData(r.Groups))), 0)
	if errno == 0 {
		return nil
	}
	gids, err := unix.Getgroups()
	if err != nil {
		return err
	}
	have := make([]uint32, len(gids))
	for i, gid := range gids {
		have[i] = uint32(gid)
	}
	if errno == unix.EPERM && slices.Equal(otherGroups(have, r.GID), otherGroups(r.Groups, r.GID)) {
		return nil
	}
	return errno
}

// otherGroups are supplementary groups, sorted, without the gid: to have that
// one twice gives no more rights. The kubelet lists it, systemd does not.
func otherGroups(groups []uint32, gid uint32) []uint32 {
	others := slices.DeleteFunc(slices.Clone(groups), func(g uint32) bool { return g == gid })
	slices.Sort(others)
	return others
}

// ownStdio makes the user the owner of stdin, stdout and stderr, so that it
// can open /dev/stderr, and puts them into blocking mode, which is what a
// program expects and what the shim's pipes may not be in.
func ownStdio(uid uint32) error {
	for fd := range 3 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
			if err := unix.SetNonblock(fd, false); err != nil {
				return fmt.Errorf("set descriptor %d to blocking mode: %w", fd, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("stat descriptor %d: %w", fd, err)
		}
		devNull := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		if st.Uid == uid || devNull {
			continue
		}
		err := unix.Fchown(fd, int(uid), -1)
		// EPERM: the owner is not mapped into the user namespace. EROFS: a
		// device on a read-only /dev. runc goes on as well.
		if err != nil && err != unix.EPERM && err != unix.EROFS {
			return fmt.Errorf("change owner of descriptor %d to uid %d: %w", fd, uid, err)
		}
	}
	return nil
}

package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

var rlimitNames = map[int]string{
	unix.RLIMIT_AS: "RLIMIT_AS", unix.RLIMIT_CORE: "RLIMIT_CORE",
	unix.RLIMIT_CPU: "RLIMIT_CPU", unix.RLIMIT_DATA: "RLIMIT_DATA",
	unix.RLIMIT_FSIZE: "RLIMIT_FSIZE", unix.RLIMIT_LOCKS: "RLIMIT_LOCKS",
	unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK", unix.RLIMIT_MSGQUEUE: "RLIMIT_MSGQUEUE",
	unix.RLIMIT_NICE: "RLIMIT_NICE", unix.RLIMIT_NOFILE: "RLIMIT_NOFILE",
	unix.RLIMIT_NPROC: "RLIMIT_NPROC", unix.RLIMIT_RSS: "RLIMIT_RSS",
	unix.RLIMIT_RTPRIO: "RLIMIT_RTPRIO", unix.RLIMIT_RTTIME: "RLIMIT_RTTIME",
	unix.RLIMIT_SIGPENDING: "RLIMIT_SIGPENDING", unix.RLIMIT_STACK: "RLIMIT_STACK",
}

// setResources sets what the process may use, and how it comes to it.
func setResources(r *launch.Record) error {
	if r.OOMScoreAdj != nil {
		if err := setOOMScoreAdj(*r.OOMScoreAdj); err != nil {
			return err
		}
	}
	if err := setRlimits(r.Rlimits); err != nil {
		return err
	}
	if r.IOPriority != nil {
		if err := setIOPriority(r.IOPriority); err != nil {
			return err
		}
	}
	if r.Scheduler != nil {
		return setScheduler(r.Scheduler)
	}
	return nil
}

// setRlimits sets the process's limits. It goes through package syscall,
// which then forgets the NOFILE limit the process was started with; it would
// restore that on exec, over ours.
func setRlimits(limits []launch.Rlimit) error {
	for _, l := range limits {
		err := syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard})
		if err != nil {
			name := rlimitNames[l.Resource]
			if name == "" {
				name = fmt.Sprintf("rlimit %d", l.Resource)
			}
			return fmt.Errorf("set %s to soft %d, hard %d: %w", name, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// setOOMScoreAdj sets the process's badness for the OOM killer, -1000 to 1000.
// Lowering it takes CAP_SYS_RESOURCE.
func setOOMScoreAdj(score int) error {
	err := os.WriteFile("/proc/self/oom_score_adj", strconv.AppendInt(nil, int64(score), 10), 0)
	if err != nil {
		return fmt.Errorf("set oom score adjustment %d: %w", score, err)
	}
	return nil
}

// setIOPriority sets the calling thread's I/O class and priority.
func setIOPriority(p *launch.IOPriority) error {
	const (
		whoProcess = 1  // IOPRIO_WHO_PROCESS, of linux/ioprio.h
		classShift = 13 // IOPRIO_CLASS_SHIFT
	)
	_, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(p.Class<<classShift|p.Priority))
	if errno != 0 {
		return fmt.Errorf("set io class %d, priority %d: %w", p.Class, p.Priority, errno)
	}
	return nil
}

// setScheduler sets the calling thread's scheduling policy.
func setScheduler(s *launch.Scheduler) error {
	attr := unix.SchedAttr{
		Policy: s.Policy, Nice: s.Nice, Priority: uint32(s.Priority),
		Flags: s.Flags, Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("set scheduler policy %d: %w", s.Policy, err)
	}
	return nil
}

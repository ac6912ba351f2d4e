package initmode

import (
	"fmt"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// rlimitTypes are the names of the runtime-spec (config.md, process.rlimits).
var rlimitTypes = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

// RlimitResource returns the number of a resource limit's name.
func RlimitResource(name string) (int, error) {
	n, ok := rlimitTypes[name]
	if !ok {
		return 0, fmt.Errorf("process.rlimits: type %q is unknown; see getrlimit(2) for the names", name)
	}
	return n, nil
}

// record describes how to start the command exactly as runc would have.
func record(req *Request) (*launch.Record, error) {
	p := req.Spec.Process
	r := &launch.Record{
		Args:            p.Args,
		Env:             config.WithoutPouch(p.Env),
		Cwd:             p.Cwd,
		UID:             p.User.UID,
		GID:             p.User.GID,
		Groups:          p.User.AdditionalGids,
		NoNewPrivileges: p.NoNewPrivileges,
		OOMScoreAdj:     p.OOMScoreAdj,
		Terminal:        p.Terminal,
		StopSignal:      int(unix.SIGTERM),
	}
	umask := uint32(0o022) // what runc sets when the spec has none
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	r.Umask = &umask
	if p.ConsoleSize != nil {
		r.Rows, r.Cols = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	if c := p.Capabilities; c != nil {
		caps := &launch.Capabilities{}
		for _, set := range []struct {
			field string
			mask  *uint64
			names []string
		}{
			{"bounding", &caps.Bounding, c.Bounding},
			{"effective", &caps.Effective, c.Effective},
			{"permitted", &caps.Permitted, c.Permitted},
			{"inheritable", &caps.Inheritable, c.Inheritable},
			{"ambient", &caps.Ambient, c.Ambient},
		} {
			*set.mask = capabilityMask(set.names)
		}
		r.Capabilities = caps
	}
	limited := map[int]bool{}
	for _, l := range p.Rlimits {
		resource, err := RlimitResource(l.Type)
		if err != nil {
			return nil, err
		}
		if limited[resource] {
			return nil, fmt.Errorf("process.rlimits: type %q occurs twice; keep one", l.Type)
		}
		limited[resource] = true
		r.Rlimits = append(r.Rlimits, launch.Rlimit{Resource: resource, Soft: l.Soft, Hard: l.Hard})
	}
	// An init has limits of its own: what the spec leaves alone must be
	// what the command would have inherited from the runtime.
	for _, l := range req.Limits {
		if !limited[l.Resource] {
			r.Rlimits = append(r.Rlimits, l)
		}
	}
	if io := p.IOPriority; io != nil {
		class, ok := ioClasses[io.Class]
		if !ok {
			return nil, fmt.Errorf("process.ioPriority.class: value %q is unknown; see ioprio_set(2) for the classes", io.Class)
		}
		r.IOPriority = &launch.IOPriority{Class: class, Priority: io.Priority}
	}
	if s := p.Scheduler; s != nil {
		var err error
		if r.Scheduler, err = scheduler(s); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// capabilityMask skips names that this build does not know, as runc does.
func capabilityMask(names []string) uint64 {
	var mask uint64
	for _, name := range names {
		for _, c := range capability.ListKnown() {
			if strings.EqualFold(name, "CAP_"+c.String()) {
				mask |= 1 << uint(c)
			}
		}
	}
	return mask
}

var ioClasses = map[specs.IOPriorityClass]int{
	specs.IOPRIO_CLASS_RT:   1,
	specs.IOPRIO_CLASS_BE:   2,
	specs.IOPRIO_CLASS_IDLE: 3,
}

var (
	schedulerPolicies = map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther:    unix.SCHED_NORMAL,
		specs.SchedFIFO:     unix.SCHED_FIFO,
		specs.SchedRR:       unix.SCHED_RR,
		specs.SchedBatch:    unix.SCHED_BATCH,
		specs.SchedISO:      4, // SCHED_ISO is reserved and has no name in the kernel's headers
		specs.SchedIdle:     unix.SCHED_IDLE,
		specs.SchedDeadline: unix.SCHED_DEADLINE,
	}
	schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork:  unix.SCHED_FLAG_RESET_ON_FORK,
		specs.SchedFlagReclaim:      unix.SCHED_FLAG_RECLAIM,
		specs.SchedFlagDLOverrun:    unix.SCHED_FLAG_DL_OVERRUN,
		specs.SchedFlagKeepPolicy:   unix.SCHED_FLAG_KEEP_POLICY,
		specs.SchedFlagKeepParams:   unix.SCHED_FLAG_KEEP_PARAMS,
		specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN,
		specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX,
	}
)

func scheduler(s *specs.Scheduler) (*launch.Scheduler, error) {
	policy, ok := schedulerPolicies[s.Policy]
	if !ok {
		return nil, fmt.Errorf("process.scheduler.policy: value %q is unknown; see sched(7) for the policies", s.Policy)
	}
	out := &launch.Scheduler{
		Policy: policy, Nice: s.Nice, Priority: s.Priority,
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, name := range s.Flags {
		flag, ok := schedulerFlags[name]
		if !ok {
			return nil, fmt.Errorf("process.scheduler.flags: value %q is unknown; see sched_setattr(2) for the flags", name)
		}
		out.Flags |= flag
	}
	return out, nil
}

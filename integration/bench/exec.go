package main

import "errors"

// idle is a command that does nothing.
var idle = []string{"/bin/sleep", "100000"}

// exec is add, start, exit and delete of an exec.
func (b *bench) exec() (_ []figure, err error) {
	var sides []side
	for _, at := range []place{{b, b.stock()}, {b, ours("none")}, {b.other, b.crun()}} {
		r, err := at.launch("busybox", at.runtime, idle)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, at.removeTask(r)) }()
		sides = append(sides, b.execSide(at.name, r))
		if at.init != "" {
			moved, err := cgroupFloor(int(r.Pid()))
			if err != nil {
				return nil, err
			}
			sides = append(sides, single(minimal, execFloor(int(r.Pid()))), single(inCgroups, moved))
		}
	}
	all, err := b.interleave("exec", 60, 5, sides...)
	if err != nil {
		return nil, err
	}
	const name = "exec of /bin/true"
	runc, none, least, moved, crun := all[0][0], all[1][0], all[2][0], all[3][0], all[4][0]
	return []figure{
		compare(name, "ms", withRunc, none, runc, ratioAtMost(0.35)),
		compare(name, "ms", withCrun, none, crun, nil),
		compare(name, "ms", minimal, none, least, nil),
		compare(name, "ms", inCgroups, none, moved, nil),
	}, nil
}

func (b *bench) execSide(name string, r *running) side {
	return single(name, func() (float64, error) {
		took, err := b.execTrue(r)
		return milliseconds(took), err
	})
}

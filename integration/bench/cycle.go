package main

import (
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
)

// cycle is create, start, exit and delete of a task, whose container is kept.
func (b *bench) cycle() ([]figure, error) {
	var sides []side
	for _, at := range []place{{b, b.stock()}, {b, ours("none")}, {b.other, b.crun()}, {b, ours("dumb-init")}} {
		c, err := at.container("busybox", at.runtime, []string{"/bin/true"})
		if err != nil {
			return nil, err
		}
		sides = append(sides, single(at.name, func() (float64, error) {
			ctx, cancel := b.within()
			defer cancel()
			begin := time.Now()
			r, err := at.start(ctx, c, cio.NullIO)
			if err != nil {
				return 0, err
			}
			if err := ended(r.exit, 0); err != nil {
				return 0, err
			}
			_, err = r.Delete(ctx)
			return milliseconds(time.Since(begin)), err
		}))
	}
	floor, err := b.createFloor("floor-of-cycle")
	if err != nil {
		return nil, err
	}
	all, err := b.interleave("task create, start, exit, delete", 40, 3, append(sides, single(minimal, floor))...)
	if err != nil {
		return nil, err
	}
	runc, none, crun, dumb, least := all[0][0], all[1][0], all[2][0], all[3][0], all[4][0]
	const name = "task create, start, exit and delete of /bin/true, "
	return []figure{
		compare(name+"init none", "ms", withRunc, none, runc, ratioAtMost(0.50)),
		compare(name+"init none", "ms", withCrun, none, crun, nil),
		compare(name+"init none", "ms", minimal, none, least, nil),
		compare(name+"init dumb-init", "ms", withRunc, dumb, runc, ratioAtMost(0.55)),
		compare(name+"init dumb-init", "ms", withCrun, dumb, crun, nil),
	}, nil
}

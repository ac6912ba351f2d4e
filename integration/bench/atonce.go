package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
)

// crowd is how many are created, and how many execs run, at once.
const crowd = 32

// atOnce is what a burst of requests costs.
func (b *bench) atOnce() ([]figure, error) {
	create, err := b.createFloor("floor-at-once")
	if err != nil {
		return nil, err
	}
	var sides []side
	for _, with := range []runtime{b.stock(), ours("none")} {
		sides = append(sides, side{with.name, func() ([]float64, error) { return b.burst(with, create) }})
	}
	all, err := b.interleave("32 at once", 6, 1, sides...)
	if err != nil {
		return nil, err
	}
	var out []figure
	for n, name := range []string{"creates", "execs, one in each container", "execs in one container"} {
		name = fmt.Sprintf("%d %s at once", crowd, name)
		out = append(out,
			compare(name, "per s", withRunc, all[1][n], all[0][n], ratioAtLeast(2)),
			compare(name, "per s", minimal, all[1][n], all[1][n+floors], nil))
	}
	return out, nil
}

// floors is where the figures of the minimal program follow among those of a
// burst.
const floors = 3

// burst returns how many creates, execs in all containers, and execs in one
// container there are in a second, and then the same of the minimal program.
func (b *bench) burst(with runtime, create func() (float64, error)) (_ []float64, err error) {
	containers := make([]containerd.Container, crowd)
	for i := range containers {
		if containers[i], err = b.container("busybox", with, idle); err != nil {
			return nil, err
		}
	}
	tasks := make([]*running, crowd)
	ctx, cancel := b.within()
	defer cancel()
	creates, err := rate(func(i int) error {
		task, err := containers[i].NewTask(ctx, cio.NullIO)
		if err != nil {
			return err
		}
		tasks[i] = &running{Task: task, container: containers[i]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range tasks {
		if r.exit, err = r.Wait(b.context()); err != nil {
			return nil, err
		}
		if err := r.Start(ctx); err != nil {
			return nil, err
		}
	}
	each, err := rate(func(i int) error {
		_, err := b.execTrue(tasks[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	one, err := rate(func(i int) error {
		_, err := b.execAs(tasks[0], fmt.Sprintf("one-%d", i))
		return err
	})
	if err != nil {
		return nil, err
	}
	values := []float64{creates, each, one}
	for _, floor := range []func(i int) (float64, error){
		func(int) (float64, error) { return create() },
		func(i int) (float64, error) { return execFloor(int(tasks[i].Pid()))() },
		func(int) (float64, error) { return execFloor(int(tasks[0].Pid()))() },
	} {
		value, err := rate(func(i int) error {
			_, err := floor(i)
			return err
		})
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	_, err = rate(func(i int) error { return b.removeTask(tasks[i]) })
	return values, err
}

// rate calls f for the whole crowd at once, and returns calls per second.
func rate(f func(i int) error) (float64, error) {
	errs := make([]error, crowd)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range crowd {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return crowd / time.Since(begin).Seconds(), errors.Join(errs...)
}

package main

import (
	"errors"
	"fmt"
	"sync"
)

// many is how many execs a shim has behind it in the last comparison.
const many = 5000

// flat is whether an exec takes longer the more there is in a pod, or after
// many others.
func (b *bench) flat() (_ []figure, err error) {
	sizes := []int{1, 10, 100}
	var sides []side
	for _, size := range sizes {
		pod := b.newID()
		var last *running
		for range size {
			r, err := b.launch("busybox", ours("none"), idle, withPod(pod))
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, b.removeTask(r)) }()
			last = r
		}
		sides = append(sides, b.execSide(fmt.Sprintf("%d containers", size), last))
	}
	old, err := b.launch("busybox", ours("none"), idle)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.removeTask(old)) }()
	count, err := b.age(old)
	if err != nil {
		return nil, err
	}
	sides = append(sides, b.execSide(fmt.Sprintf("after %d", count), old))
	all, err := b.interleave("exec in pods", 60, 3, sides...)
	if err != nil {
		return nil, err
	}
	const alone = "ours, 1 container"
	one, ten, hundred, after := all[0][0], all[1][0], all[2][0], all[3][0]
	return []figure{
		compare("exec with 10 containers in the pod", "ms", alone, ten, one, ratioAtMost(1.2)),
		compare("exec with 100 containers in the pod", "ms", alone, hundred, one, ratioAtMost(1.2)),
		compare(fmt.Sprintf("exec after %d execs", count), "ms", alone, after, one, ratioAtMost(1.2)),
	}, nil
}

// age runs execs, fewer if the rounds are bounded, and returns how many.
func (b *bench) age(r *running) (int, error) {
	count := many
	if b.cap > 0 {
		count = min(many, 50*b.cap)
	}
	fmt.Printf("%d execs\n", count)
	const workers = 4
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for n := w; n < count && errs[w] == nil; n += workers {
				_, errs[w] = b.execAs(r, fmt.Sprintf("old-%d", n))
			}
		})
	}
	all.Wait()
	return count, errors.Join(errs...)
}

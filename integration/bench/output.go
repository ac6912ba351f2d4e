package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

// written is how much the command writes to its stdout, in MiB.
const written = 1024

// output is what it costs to get the command's output.
func (b *bench) output() ([]figure, error) {
	var sides []side
	for _, with := range []runtime{b.stock(), ours("none"), ours("systemd")} {
		sides = append(sides, side{with.name, func() ([]float64, error) { return b.write(with) }})
	}
	all, err := b.interleave("1 GiB to stdout", 7, 1, sides...)
	if err != nil {
		return nil, err
	}
	var out []figure
	for n, mode := range []string{"none", "systemd"} {
		out = append(out,
			compare("command's output, init "+mode, "MiB per s", withRunc, all[n+1][0], all[0][0], ratioAtLeast(1)),
			compare("CPU for the command's output, init "+mode, "s per GiB", withRunc, all[n+1][1], all[0][1], ratioAtMost(0.7)))
	}
	return out, nil
}

// meter counts what the command has written after its first line.
type meter struct {
	bytes int64
	ready chan struct{} // closed when the first line is there
	done  chan struct{}
}

func (m *meter) Write(p []byte) (int, error) {
	select {
	case <-m.ready:
		if m.bytes += int64(len(p)); m.bytes == written<<20 {
			close(m.done)
		}
	default:
		close(m.ready)
	}
	return len(p), nil
}

// write returns the throughput, and the CPU time of all who take part: the
// command, the shim and the reader.
func (b *bench) write(with runtime) (_ []float64, err error) {
	// The boot is over before it begins. It goes on until it is told to end,
	// when all is counted.
	const script = "[ $(cat /proc/1/comm) != systemd ] || systemctl is-system-running --wait >&2; " +
		"echo ready; read go; dd if=/dev/zero bs=64k count=%d 2>/dev/null; exec sleep 100000"
	c, err := b.container("debian-bookworm", with, []string{"/bin/sh", "-c", fmt.Sprintf(script, written*16)})
	if err != nil {
		return nil, err
	}
	m := &meter{ready: make(chan struct{}), done: make(chan struct{})}
	stdin, begin := io.Pipe()
	defer begin.Close()
	ctx, cancel := b.within()
	defer cancel()
	r, err := b.start(ctx, c, b.streams(stdin, m))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.removeTask(r)) }()
	shim, err := b.shim(r.ID())
	if err != nil {
		return nil, err
	}
	if err := await(ctx, m.ready); err != nil {
		return nil, err
	}
	before, err := b.cpu(c, shim)
	if err != nil {
		return nil, err
	}
	from := time.Now()
	if _, err := io.WriteString(begin, "go\n"); err != nil {
		return nil, err
	}
	if err := await(ctx, m.done); err != nil {
		return nil, err
	}
	took := time.Since(from)
	after, err := b.cpu(c, shim)
	return []float64{written / took.Seconds(), (after - before).Seconds()}, err
}

// await waits until the command has come as far.
func await(ctx context.Context, far chan struct{}) error {
	select {
	case <-far:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the command's output: %w", ctx.Err())
	}
}

// cpu is the CPU time of a container, its shim and this process so far.
func (b *bench) cpu(c containerd.Container, shim int) (time.Duration, error) {
	group := b.Cgroup() + "/" + c.ID()
	var total time.Duration
	if text, err := os.ReadFile("/sys/fs/cgroup/cpuacct" + group + "/cpuacct.usage"); err == nil {
		ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, err
		}
		total = time.Duration(ns)
	} else {
		text, err := os.ReadFile("/sys/fs/cgroup" + group + "/cpu.stat")
		if err != nil {
			return 0, err
		}
		var us int64
		if _, err := fmt.Sscanf(string(text), "usage_usec %d", &us); err != nil {
			return 0, err
		}
		total = time.Duration(us) * time.Microsecond
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", shim))
	if err != nil {
		return 0, err
	}
	// The fields behind the name; utime and stime are 14 and 15 of the line
	// (proc_pid_stat(5)), in ticks of which a second has 100.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * 10 * time.Millisecond
	}
	var self unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return 0, err
	}
	return total + time.Duration(self.Utime.Nano()+self.Stime.Nano()), nil
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
)

// bootImage is what all boot, as it is.
const bootImage = "debian-bookworm"

// bootScript is the command, and for the peers the same unit's: it says when it
// begins and when the boot is over, and ends at once on TERM.
const bootScript = "echo ready; systemctl is-system-running --wait >/dev/null; echo booted; exec sleep 100000"

// boot is how long it takes until systemd has started the command, and until all
// has ended after a request to stop.
func (b *bench) boot() ([]figure, error) {
	n := nspawnPeer{b: b}
	p := podmanPeer{b: b}
	for _, prepare := range []func() error{n.prepare, p.prepare} {
		if err := prepare(); err != nil {
			return nil, err
		}
	}
	all, err := b.interleave("boot and stop", 12, 1,
		side{nspawn, n.measure}, side{"ours, systemd", b.bootOurs}, side{podman, p.measure})
	if err != nil {
		return nil, err
	}
	const boot, stop = "systemd: from create to the command's first line", "systemd: stop, with a command that ends at once"
	spawn, ours, pod := all[0], all[1], all[2]
	return []figure{
		compare(boot, "ms", nspawn, ours[0], spawn[0], ratioAtMost(1)),
		compare(boot, "ms", podman, ours[0], pod[0], ratioAtMost(0.5)),
		compare(stop, "ms", nspawn, ours[1], spawn[1], ratioAtMost(1)),
		compare(stop, "ms", podman, ours[1], pod[1], nil),
	}, nil
}

// bootOurs returns the times of boot and stop in ms.
func (b *bench) bootOurs() (_ []float64, err error) {
	c, err := b.container(bootImage, ours("systemd"), []string{"/bin/sh", "-c", bootScript})
	if err != nil {
		return nil, err
	}
	ctx, cancel := b.within()
	defer cancel()
	out, in := io.Pipe()
	lines := listen(out)
	begin := time.Now()
	r, err := b.start(ctx, c, b.streams(nil, in))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.removeTask(r)) }()
	if err := lines.await("ready"); err != nil {
		return nil, err
	}
	boot := time.Since(begin)
	if err := lines.await("booted"); err != nil {
		return nil, err
	}
	begin = time.Now()
	if err := r.Kill(ctx, syscall.SIGTERM); err != nil {
		return nil, err
	}
	status := <-r.exit
	stop := time.Since(begin)
	if code := status.ExitCode(); code != 128+uint32(syscall.SIGTERM) {
		return nil, fmt.Errorf("exit status %d: %w", code, status.Error())
	}
	ended := make(chan containerd.ExitStatus, 1)
	ended <- status
	r.exit = ended
	return []float64{milliseconds(boot), milliseconds(stop)}, nil
}

// lines are what the command says.
type lines chan string

func listen(r io.Reader) lines {
	l := make(lines, 16)
	go func() {
		defer close(l)
		for s := bufio.NewScanner(r); s.Scan(); {
			l <- s.Text()
		}
	}()
	return l
}

func (l lines) await(want string) error {
	late := time.After(limit)
	for {
		select {
		case line, ok := <-l:
			if !ok {
				return fmt.Errorf("it ended before it said %q", want)
			}
			if line == want {
				return nil
			}
		case <-late:
			return fmt.Errorf("it did not say %q", want)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"containerd-shim-rich/integration/containerdtest"
	"containerd-shim-rich/integration/daemon"
)

// podSize is how many containers the large pod has.
const podSize = 20

// settle is how long a shim is left alone before its memory is read.
const settle = 2 * time.Second

// memory is what a shim and the launcher take.
func (b *bench) memory() ([]figure, error) {
	var sides []side
	for _, with := range []runtime{b.stock(), ours("none"), ours("dumb-init")} {
		sides = append(sides, side{with.name, func() ([]float64, error) { return b.podMemory(with) }})
	}
	sides = append(sides, single("launcher", b.launcherMemory))
	all, err := b.interleave("memory", 5, 0, sides...)
	if err != nil {
		return nil, err
	}
	var out []figure
	for n, mode := range []string{"none", "dumb-init"} {
		theirs, mine := all[0], all[n+1]
		out = append(out,
			compare("shim Pss, 1 container, init "+mode, "KiB", withRunc, mine[0], theirs[0], ratioAtMost(0.6)),
			compare("shim Pss, 20 containers in a pod, init "+mode, "KiB", withRunc, mine[1], theirs[1], ratioAtMost(0.6)),
			compare("shim Pss, growth for each container, init "+mode, "KiB", withRunc, mine[2], theirs[2], atMost(150)))
	}
	return append(out, compare("launcher Pss", "KiB", nobody, all[3][0], nil, atMost(1536))), nil
}

// podMemory returns the Pss of a shim with 1 and with podSize containers, and
// its growth for each of them, in KiB.
func (b *bench) podMemory(with runtime) (_ []float64, err error) {
	pod := b.newID()
	var first string
	pss := map[int]float64{}
	for n := 1; n <= podSize; n++ {
		r, err := b.launch("busybox", with, idle, withPod(pod))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.removeTask(r)) }()
		if n == 1 {
			first = r.ID()
		}
		if n != 1 && n != podSize {
			continue
		}
		time.Sleep(settle)
		pid, err := b.shim(first)
		if err != nil {
			return nil, err
		}
		if pss[n], err = pssOf(pid); err != nil {
			return nil, err
		}
	}
	return []float64{pss[1], pss[podSize], (pss[podSize] - pss[1]) / (podSize - 1)}, nil
}

// launcherMemory returns the Pss of the launcher beside a command, in KiB.
func (b *bench) launcherMemory() (_ float64, err error) {
	r, err := b.launch("debian-bookworm", ours("systemd"), idle)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.removeTask(r)) }()
	var pid int
	err = daemon.Poll(limit, func() error {
		all, err := containerdtest.Processes(b.Dir)
		cmd := false
		for _, p := range all {
			if p.Text == "/run/rich/launch app" {
				pid = p.Pid
			}
			cmd = cmd || p.Text == strings.Join(idle, " ")
		}
		if pid == 0 || !cmd {
			return errors.Join(err, errors.New("the command does not run"))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	return pssOf(pid)
}

// pssOf reads the proportional set size of a process in KiB (proc_pid_smaps(5)).
func pssOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, errors.Join(err, fmt.Errorf("no Pss of process %d", pid))
}

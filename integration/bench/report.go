package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// result is build/bench.json.
type result struct {
	Machine string   `json:"machine"`
	Figures []figure `json:"figures"`
}

func (r *result) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// table is the figures for a reader.
func table(figures []figure) string {
	var out strings.Builder
	out.WriteString("| Figure | Unit | Ours | Peer | Peer's | Ratio | Target | Met | Rounds |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range figures {
		target, met := "", ""
		if f.Target != nil {
			target, met = *f.Target, "**no**"
			if *f.Met {
				met = "yes"
			}
		}
		theirs, ratio := "", ""
		if f.Theirs != 0 {
			theirs, ratio = short(f.Theirs), fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s | %s | %d |\n",
			f.Figure, f.Unit, short(f.Ours), f.Peer, theirs, ratio, target, met, f.Rounds)
	}
	return out.String()
}

// short rounds to three digits that count.
func short(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// tableBegin and tableEnd are around the table in the documentation.
const (
	tableBegin = "<!-- table of make bench -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// document puts the machine and the table into a page.
func (r *result) document(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, found := bytes.Cut(page, []byte(tableBegin))
	_, tail, ends := bytes.Cut(rest, []byte(tableEnd))
	if !found || !ends {
		return fmt.Errorf("%s: no place for the table", path)
	}
	text := fmt.Sprintf("%s%sMeasured on: %s\n\n%s%s%s", head, tableBegin, r.Machine, table(r.Figures), tableEnd, tail)
	return os.WriteFile(path, []byte(text), 0o644)
}

// machine tells where and with what the figures are made.
func (b *bench) machine() (string, error) {
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	var facts []string
	for line := range strings.Lines(string(cpus)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			facts = append(facts, fmt.Sprintf("%d CPUs (%s)", goruntime.NumCPU(), strings.TrimSpace(model)))
			break
		}
	}
	var system unix.Sysinfo_t
	if err := unix.Sysinfo(&system); err != nil {
		return "", err
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return "", err
	}
	facts = append(facts, fmt.Sprintf("%d GiB", (system.Totalram*uint64(system.Unit)+1<<29)>>30), "Linux "+unix.ByteSliceToString(kernel.Release[:]), goruntime.Version())
	for _, program := range [][]string{
		{filepath.Join(b.build, "tools/containerd"), "--version"},
		{filepath.Join(b.build, "suites/programs/runc"), "--version"},
		{b.crunProgram(), "--version"},
		{"systemd-nspawn", "--version"},
		{"podman", "--version"},
	} {
		out, err := exec.Command(program[0], program[1:]...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		if err != nil || line == "" {
			return "", errors.Join(fmt.Errorf("%s: no version", program[0]), err)
		}
		fields := strings.Fields(line)
		switch name := filepath.Base(program[0]); name {
		case "containerd":
			line = "containerd and stock shim " + fields[2]
		case "systemd-nspawn":
			line = name + " " + strings.Trim(fields[2], "()")
		default:
			line = name + " " + fields[2]
		}
		facts = append(facts, line)
	}
	return strings.Join(facts, ", "), nil
}

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// operate makes containerd start in a mount namespace in which /etc/containerd and /var/log are folders of the run.
func (d *daemon) operate() error {
	for _, sub := range []string{"etc/containerd/rich/components.d", "log"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return err
		}
	}
	// The overlay has the mount point that the host may lack.
	d.command.Args = append([]string{"bash", "-euc", `
		mount -t overlay overlay -o "lowerdir=$1/etc:/etc" /etc
		mount --bind "$1/etc/containerd" /etc/containerd
		mount --bind "$1/log" /var/log
		shift
		exec "$@"`, "operate", d.dir}, d.command.Args...)
	var err error
	d.command.Path, err = exec.LookPath("bash")
	return err
}

// operator is what a host's operator does.
type operator struct {
	t testing.TB
	d *daemon
}

// startOperator makes a host of its own the one that all helpers use until the end of the test. Not for tests that
// run in parallel with others.
func startOperator(t *testing.T) operator {
	t.Helper()
	usual, temp := private, os.Getenv("TMPDIR")
	// Beside the usual one: the path of a socket must not be long.
	os.Setenv("TMPDIR", filepath.Dir(usual.dir))
	restore := func() {
		private, mountinfo = usual, "/proc/self/mountinfo"
		os.Setenv("TMPDIR", temp)
	}
	d, err := startDaemonAs(&daemon{operated: true})
	os.Setenv("TMPDIR", temp)
	if err != nil {
		t.Fatal(err)
	}
	private, mountinfo = d, fmt.Sprintf("/proc/%d/mountinfo", d.command.Process.Pid)
	before, err := d.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if diff := d.settle(before, 30*time.Second); diff != "" {
			t.Errorf("the host changed (- before, + after):\n%s", diff)
		}
		restore()
		d.remove()
	})
	return operator{t: t, d: d}
}

// config is a path below /etc/containerd.
func (o operator) config(name string) string { return filepath.Join(o.d.dir, "etc/containerd", name) }

// write writes a file below /etc/containerd.
func (o operator) write(name, content string) {
	o.t.Helper()
	if err := os.WriteFile(o.config(name), []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// define offers a component.
func (o operator) define(name, content string) {
	o.t.Helper()
	o.write("rich/components.d/"+name+".toml", content)
}

// logs is a path below /var/log.
func (o operator) logs(name string) string { return filepath.Join(o.d.dir, "log", name) }

// componentLog is what a component has written to its file.
func (o operator) componentLog(r *task, name string) string {
	content, err := os.ReadFile(o.logs(filepath.Join("rich", testNamespace, r.ID, name+".log")))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// componentScript defines a component that is a shell script of the host, run by the busybox that lies beside it.
func (o operator) componentScript(name, script, keys string) {
	o.t.Helper()
	dir := filepath.Join(o.d.dir, "agents", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script+"\n"), 0o644); err != nil {
		o.t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755); err != nil {
		o.t.Fatal(err)
	}
	o.define(name, fmt.Sprintf("directory = %q\nexec = [\"busybox\", \"sh\", \"script\"]\n%s\n", dir, keys))
}

// waitLog waits for a text in the file of a component.
func (o operator) waitLog(r *task, name, text string) {
	r.t.Helper()
	err := poll(initLimit, func() error {
		if log := o.componentLog(r, name); !strings.Contains(log, text) {
			return fmt.Errorf("no %q in %q", text, tail(log))
		}
		return nil
	})
	if err != nil {
		r.fatal("log of component %s: %v", name, err)
	}
}

func TestComponentsFirst(t *testing.T) {
	o := startOperator(t)
	o.componentScript("before", "echo up; trap 'echo down; exit 0' TERM; while :; do sleep 1000 & wait $!; done", `start = "before"`)
	run := startTask(t, imageBusybox, withInit("dumb-init"), withRich("components", "before"), withArgs("sh", "-c", "ps; trap 'exit 5' TERM; "+ready+idle))
	run.WaitOutput("ready", runLimit)
	o.waitLog(run, "before", "up")
	t.Log(run.Stdout.String(), run.Stderr.String(), o.componentLog(run, "before"))
	run.Kill(syscall.SIGTERM)
	if code := run.Wait(runLimit); code != 5 {
		run.fatal("status %d", code)
	}
	t.Log(run.Stdout.String(), run.Stderr.String(), o.componentLog(run, "before"))
	run.Delete()
	_ = errors.New
}

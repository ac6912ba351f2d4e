package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// operator is what a host's operator does. Its containers run withHost(o.files).
type operator struct {
	t     testing.TB
	files *hostFiles
}

func newOperator(t testing.TB) operator {
	t.Helper()
	o := operator{t: t, files: newHostFiles(t, nil)}
	for _, dir := range []string{"/etc/containerd/rich/components.d", "/agents"} {
		if err := os.MkdirAll(o.files.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// write writes the host's file of options.
func (o operator) write(content string) {
	o.t.Helper()
	o.files.Write(o.t, "/etc/containerd/rich.toml", content, 0o644)
}

// definition is the file of a component.
func (o operator) definition(name string) string {
	return o.files.Path("/etc/containerd/rich/components.d/" + name + ".toml")
}

// define offers a component.
func (o operator) define(name, content string) {
	o.t.Helper()
	if err := os.WriteFile(o.definition(name), []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

// logs is a path below the host's /var/log/rich.
func (o operator) logs(names ...string) string {
	return o.files.Path(filepath.Join(append([]string{"/var/log/rich"}, names...)...))
}

// componentLog is what a component has written to its file.
func (o operator) componentLog(r *task, name string) string {
	content, err := os.ReadFile(o.logs(testNamespace, r.ID, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// waitLog waits for a text in the file of a component.
func (o operator) waitLog(r *task, name, text string) {
	r.t.Helper()
	err := poll(bootLimit, func() error {
		if log := o.componentLog(r, name); !strings.Contains(log, text) {
			return fmt.Errorf("no %q in %q", text, tail(log))
		}
		return nil
	})
	if err != nil {
		r.fatal("log of component %s: %v", name, err)
	}
}

// waitShimLog waits for a line of the shim's log that holds all words.
func (r *task) waitShimLog(words ...string) {
	r.t.Helper()
	err := poll(bootLimit, func() error {
		for line := range strings.Lines(private.LogTail(r.ID, 1000)) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				return nil
			}
		}
		return fmt.Errorf("no line with %q", words)
	})
	if err != nil {
		r.fatal("%v", err)
	}
}

// agent is the folder of a component.
func (o operator) agent(name string) string { return o.files.Path("/agents/" + name) }

// makeAgent makes the folder of a component with copies of files.
func (o operator) makeAgent(name string, files map[string]string) {
	o.t.Helper()
	if err := os.MkdirAll(o.agent(name), 0o755); err != nil {
		o.t.Fatal(err)
	}
	for to, from := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			o.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.agent(name), to), content, 0o755); err != nil {
			o.t.Fatal(err)
		}
	}
}

// script defines a component that is a shell script of the host, run by the busybox that lies beside it.
func (o operator) script(name, script, keys string) {
	o.t.Helper()
	o.makeAgent(name, map[string]string{"busybox": buildPath("bin/busybox")})
	if err := os.WriteFile(filepath.Join(o.agent(name), "script"), []byte(script+"\n"), 0o644); err != nil {
		o.t.Fatal(err)
	}
	o.define(name, fmt.Sprintf("directory = %q\nexec = [\"busybox\", \"sh\", \"script\"]\n%s\n", o.agent(name), keys))
}

// with runs a container on this host with the components of these names.
func (o operator) with(names string) taskOption {
	host, choose := withHost(o.files), withRich("components", names)
	return func(s *taskSettings) {
		host(s)
		choose(s)
	}
}

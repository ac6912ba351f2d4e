package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refuseRestarts makes the node's service manager fail while it is there.
const refuseRestarts = "/run/refuse-restarts"

// serviceManager makes a systemctl for the node that can do one thing: restart containerd.
func (n *cluster) serviceManager() error {
	wanted := filepath.Join(n.run, "restart-containerd")
	err := os.WriteFile("/usr/local/bin/systemctl", []byte(`#!/bin/sh
[ "$*" = "restart containerd" ] || { echo "this stand-in can only restart containerd" >&2; exit 1; }
[ ! -e `+refuseRestarts+` ] || exit 1
touch `+wanted+`
while [ -e `+wanted+` ]; do sleep 0.1; done
`), 0o755)
	if err != nil {
		return err
	}
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			if _, err := os.Stat(wanted); err != nil {
				continue
			}
			_ = n.containerd.Signal(syscall.SIGTERM)
			<-n.containerd.Exited()
			err := n.containerd.Start()
			if err == nil {
				err = n.containerdReady()
			}
			if err != nil {
				complain("restart containerd: %v", err)
			}
			os.Remove(wanted)
		}
	}()
	return nil
}

// installed are the files that make the RuntimeClass work on a node.
var installed = []string{
	"/etc/containerd/conf.d/rich.toml",
	"/usr/local/bin/containerd-shim-rich-v2",
	"/usr/local/libexec/containerd-shim-rich/dumb-init",
	"/usr/local/libexec/containerd-shim-rich/rich-launch",
}

// installer is the DaemonSet of deploy/kubernetes on the node.
type installer struct{ t *testing.T }

func (i installer) kubectl(args ...string) string {
	i.t.Helper()
	return kubectl(i.t, append([]string{"--namespace=kube-system"}, args...)...)
}

func (i installer) apply(folder string) {
	i.t.Helper()
	kubectl(i.t, "apply", "-k", treePath(folder))
}

func (i installer) done() {
	i.t.Helper()
	i.kubectl("rollout", "status", "daemonset/rich-installer", "--timeout=150s")
}

// says waits until the installer says why it does not get on, in its log or in the status of its pod.
func (i installer) says(text string) {
	i.t.Helper()
	eventually(i.t, podLimit, "the installer says "+text, func() error {
		logs, _ := node.kubectl("logs", "--namespace=kube-system", "--selector=app=rich-installer").CombinedOutput()
		status := i.kubectl("get", "pods", "--selector=app=rich-installer", "--output=jsonpath={.items[*].status}")
		if !strings.Contains(string(logs), text) && !strings.Contains(status, text) {
			return fmt.Errorf("log\n%s\nstatus\n%s", logs, status)
		}
		return nil
	})
	if ready := i.kubectl("get", "daemonset", "rich-installer", "--output=jsonpath={.status.numberReady}"); ready != "0" {
		i.t.Errorf("%s are ready", ready)
	}
}

// gone waits until there is no pod of the installer.
func (i installer) gone() {
	i.t.Helper()
	eventually(i.t, podLimit, "the installer's pod ends", func() error {
		if text := i.kubectl("get", "pods", "--output=name"); text != "" {
			return errors.New(text)
		}
		return nil
	})
}

// checkInstalled compares the files on the node with those that were to be installed.
func (i installer) checkInstalled() {
	i.t.Helper()
	for _, file := range installed {
		source, mode := buildPath("bin/"+filepath.Base(file)), os.FileMode(0o755)
		if filepath.Ext(file) == ".toml" {
			source, mode = treePath("deploy/kubernetes/rich.toml"), 0o644
		}
		want, err := os.ReadFile(source)
		if err != nil {
			i.t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			i.t.Error(err)
		} else if !bytes.Equal(got, want) {
			i.t.Errorf("%s is not %s", file, source)
		}
		if info, err := os.Stat(file); err == nil && info.Mode() != mode {
			i.t.Errorf("%s: mode %v, want %v", file, info.Mode(), mode)
		}
	}
}

// TestInstaller removes the runtime from the node and installs it again with deploy/kubernetes, as it is there.
func TestInstaller(t *testing.T) {
	const folder, uninstall = "deploy/kubernetes", "deploy/kubernetes-uninstall"
	i := installer{t}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := node.kubectl("describe", "pod", "--namespace=kube-system").CombinedOutput()
			logs, _ := node.kubectl("logs", "--namespace=kube-system", "--selector=app=rich-installer").CombinedOutput()
			t.Logf("%s\n%s", text, logs)
		}
	})
	i.apply(folder)
	i.done()
	eventually(t, podLimit, "no shim of ours runs", func() error { return noProcess("containerd-shim-rich-v2") })

	i.apply(uninstall)
	i.done()
	for _, file := range installed {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", file, err)
		}
	}
	pod := systemdPod(t, untilTerm...)
	create(t, pod)
	eventually(t, podLimit, "the pod cannot start", func() error {
		if text := events(t, pod.Name); !strings.Contains(text, `no runtime for "rich" is configured`) {
			return errors.New(text)
		}
		return nil
	})
	kubectl(t, "delete", "-k", treePath(folder))
	i.gone()

	// A containerd that does not look into conf.d is not restarted for nothing.
	const config = "/etc/containerd/config.toml"
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(config, good, 0o644); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(config, bytes.Replace(good, []byte("/etc/containerd/conf.d/*.toml"), []byte("/etc/containerd/other/*.toml"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	i.apply(folder)
	i.says("has to have /etc/containerd/conf.d/*.toml in its list imports")
	// The installer is started again and again, and puts it there each time before it looks.
	eventually(t, podLimit, "the drop-in does not stay", func() error {
		if _, err := os.Stat(installed[0]); !errors.Is(err, os.ErrNotExist) {
			return errors.New("it is there")
		}
		return nil
	})
	if err := os.WriteFile(config, good, 0o644); err != nil {
		t.Fatal(err)
	}
	i.done()
	i.checkInstalled()
	waitFor(t, pod.Name, "is ready", isReady)
	want(t, "pid 1", pid1(t, pod.Name, "app"), "systemd")

	// Another version is put under containers that run. What containerd does not accept is taken back.
	other := map[string]string{}
	for _, file := range installed {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		other[file] = string(append(content, '\n'))
		err = errors.Join(os.WriteFile(file+".other", []byte(other[file]), 0o700), os.Rename(file+".other", file))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(refuseRestarts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(refuseRestarts) })
	i.kubectl("rollout", "restart", "daemonset/rich-installer")
	i.says("containerd does not start")
	if content, err := os.ReadFile(installed[0]); err != nil || string(content) != other[installed[0]] {
		t.Errorf("the drop-in that was there before: %v\n%s", err, content)
	}
	if err := os.Remove(refuseRestarts); err != nil {
		t.Fatal(err)
	}
	i.done()
	i.checkInstalled()
	want(t, "pid 1", pid1(t, pod.Name, "app"), "systemd")

	// Containers that run still need the programs.
	i.apply(uninstall)
	i.says("waiting until their pods are deleted")
	i.checkInstalled()
	waitFor(t, pod.Name, "is ready", isReady)
	i.apply(folder)
	i.done()
	kubectl(t, "delete", "-k", treePath(folder))
	i.gone()
	i.checkInstalled()
	kubectl(t, "apply", "-f", treePath("deploy/kubernetes/runtimeclass.yaml"))
}

// noProcess tells which process has a program of this name.
func noProcess(name string) error {
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range programs {
		// Fails when the process has just ended.
		if target, _ := os.Readlink(link); filepath.Base(strings.TrimSuffix(target, " (deleted)")) == name {
			return fmt.Errorf("%s is %s", filepath.Dir(link), target)
		}
	}
	return nil
}

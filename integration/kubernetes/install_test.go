package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serviceManager makes a systemctl for the node that can do one thing: restart containerd.
func (n *cluster) serviceManager() error {
	wanted := filepath.Join(n.run, "restart-containerd")
	err := os.WriteFile("/usr/local/bin/systemctl", []byte(`#!/bin/sh
[ "$*" = "restart containerd" ] || { echo "this stand-in can only restart containerd" >&2; exit 1; }
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
			_ = n.containerd.command.Process.Signal(syscall.SIGTERM)
			<-n.containerd.exited
			err := n.containerd.start()
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

// TestInstaller removes the runtime from the node and installs it again with deploy/kubernetes, as it is there.
func TestInstaller(t *testing.T) {
	folder := treePath("deploy/kubernetes")
	apply := func() {
		t.Helper()
		kubectl(t, "apply", "-k", folder)
		kubectl(t, "rollout", "status", "daemonset/rich-installer", "--namespace=kube-system", "--timeout=150s")
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := node.kubectl("describe", "pod", "--namespace=kube-system").CombinedOutput()
			logs, _ := node.kubectl("logs", "--namespace=kube-system", "--selector=app=rich-installer").CombinedOutput()
			t.Logf("%s\n%s", text, logs)
		}
	})
	apply()
	eventually(t, podLimit, "no shim of ours runs", func() error { return noProcess("containerd-shim-rich-v2") })

	kubectl(t, "delete", "-k", folder)
	eventually(t, podLimit, "the node has nothing of it", func() error {
		for _, file := range installed {
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				return errors.Join(err, fmt.Errorf("%s is there", file))
			}
		}
		return nil
	})
	eventually(t, podLimit, "the installer's pod ends", func() error {
		if text := kubectl(t, "get", "pods", "--namespace=kube-system", "--output=name"); text != "" {
			return errors.New(text)
		}
		return nil
	})
	// The class is left to a cluster that has not the runtime on every node.
	kubectl(t, "apply", "-f", treePath("deploy/kubernetes/runtimeclass.yaml"))
	pod := systemdPod(t, untilTerm...)
	create(t, pod)
	eventually(t, podLimit, "the pod cannot start", func() error {
		if text := events(t, pod.Name); !strings.Contains(text, `no runtime for "rich" is configured`) {
			return errors.New(text)
		}
		return nil
	})

	apply()
	waitFor(t, pod.Name, "is ready", isReady)
	want(t, "pid 1", pid1(t, pod.Name, "app"), "systemd")
	for _, file := range installed {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}

	// Containers that run still need the programs.
	kubectl(t, "delete", "-k", folder)
	eventually(t, podLimit, "the installer's pod ends", func() error {
		if text := kubectl(t, "get", "pods", "--namespace=kube-system", "--output=name"); text != "" {
			return errors.New(text)
		}
		return nil
	})
	for _, file := range installed {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("removed under a pod that runs: %v", err)
		}
	}
	waitFor(t, pod.Name, "is ready", isReady)
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

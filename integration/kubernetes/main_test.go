package kubernetes

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node is the cluster that all tests share.
var node *cluster

// insideVariable tells a test binary that it runs in the private namespaces.
const insideVariable = "RICH_KUBERNETES_INSIDE"

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(insideVariable) != "" {
		os.Exit(inside(m))
	}
	os.Exit(outside())
}

// outside runs this test binary again in private namespaces, and checks that the host looks the same afterwards.
func outside() int {
	if os.Geteuid() != 0 {
		return complain("root is needed")
	}
	var missing []string
	for _, file := range []string{
		"bin/containerd-shim-rich-v2", "bin/rich-launch", "bin/dumb-init", "bin/probe", "tools/containerd", "kubernetes/programs/kubelet",
		"kubernetes/programs/etcd", "suites/programs/runc", "images/pause.tar", "images/busybox.tar", "images/debian-bookworm.tar",
	} {
		if _, err := os.Stat(buildPath(file)); err != nil {
			missing = append(missing, "build/"+file)
		}
	}
	if len(missing) > 0 {
		return complain("missing: %s; run \"make test-kubernetes\"", strings.Join(missing, ", "))
	}
	run, err := os.MkdirTemp(buildPath("kubernetes"), "run-")
	if err != nil {
		return complain("%v", err)
	}
	defer os.RemoveAll(run)
	// Root of a user namespace has to get to its root file system.
	if err := os.Chmod(run, 0o711); err != nil {
		return complain("%v", err)
	}
	before, err := lookAtHost(run)
	if err != nil {
		return complain("look at the host: %v", err)
	}

	self, err := os.Executable()
	if err != nil {
		return complain("%v", err)
	}
	folder, err := os.Getwd()
	if err != nil {
		return complain("%v", err)
	}
	command := exec.Command("../suites/namespaces.sh", append([]string{run, filepath.Join(folder, "machine.sh"), self}, os.Args[1:]...)...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), insideVariable+"=1", "NODE_ADDRESS="+nodeAddress,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	code := 0
	if err := command.Run(); err != nil {
		if code = command.ProcessState.ExitCode(); code <= 0 {
			return complain("%v", err)
		}
	}

	var changed string
	err = poll(30*time.Second, func() error {
		after, err := lookAtHost(run)
		if err != nil {
			return err
		}
		if changed = before.diff(after); changed != "" {
			return fmt.Errorf("the host changed (- before, + after):\n%s", changed)
		}
		return nil
	})
	if err != nil {
		code = max(code, complain("%v", err))
	}
	return code
}

// inside starts the cluster, runs the tests, and checks that no shim, container or mount stays when all pods are gone.
func inside(m *testing.M) int {
	var err error
	started := time.Now()
	if node, err = startCluster(os.Getenv("RUN")); err != nil {
		return complain("start the cluster: %v", err)
	}
	fmt.Printf("the node is ready after %v\n", time.Since(started).Round(time.Second))
	code := m.Run()
	if err := node.checkEmpty(); err != nil {
		code = max(code, complain("%v", err))
	}
	return code
}

func complain(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "kubernetes: "+format+"\n", args...)
	return 1
}

// buildPath returns the absolute path of a file below the build folder.
func buildPath(file string) string { return treePath("build/" + file) }

// treePath returns the absolute path of a file of this repository.
func treePath(file string) string {
	path, err := filepath.Abs(filepath.Join("..", "..", file))
	if err != nil {
		panic(err)
	}
	return path
}

// eventually calls check until it returns nil; it fails the test with check's last error after limit.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	if err := poll(limit, check); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// poll calls check until it returns nil, and returns its last error after limit.
func poll(limit time.Duration, check func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

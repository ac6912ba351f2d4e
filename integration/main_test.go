package integration

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testNamespace is the containerd namespace of all test containers.
const testNamespace = "rich-test"

// testRuntime is the runtime under test; RICH_TEST_RUNTIME names another one to compare with.
var testRuntime = envOr("RICH_TEST_RUNTIME", "io.containerd.rich.v2")

// private is the containerd that all tests share.
var private *daemon

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return complain("the integration tests need root")
	}
	if err := checkPrograms(); err != nil {
		return complain("%v", err)
	}
	if err := sweepDeadRuns(); err != nil {
		return complain("remove what an interrupted run left: %v", err)
	}

	withDefaultSignals()
	var err error
	if private, err = startDaemon(); err != nil {
		return complain("start containerd: %v", err)
	}
	defer private.remove()
	stopOnSignal()
	before, err := private.snapshot()
	if err != nil {
		return complain("look at the host: %v", err)
	}

	code := m.Run()

	if diff := private.settle(before, patience(30*time.Second)); diff != "" {
		code = max(code, complain("the run left something on the host (- before, + after):\n%s", diff))
	}
	return code
}

func complain(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "integration: "+format+"\n", args...)
	return 1
}

// checkPrograms tells what to build instead of letting every test fail for the same reason.
func checkPrograms() error {
	need := []string{"tools/containerd", "bin/probe", "bin/hostile"}
	if testRuntime == "io.containerd.rich.v2" {
		need = append(need, "bin/containerd-shim-rich-v2", "bin/rich-launch", "bin/dumb-init")
	}
	var missing []string
	for _, file := range need {
		if _, err := os.Stat(buildPath(file)); err != nil {
			missing = append(missing, "build/"+file)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: %s; run \"make integration\"", strings.Join(missing, ", "))
	}
	return nil
}

// buildPath returns the absolute path of a file below the build folder.
func buildPath(file string) string {
	path, err := filepath.Abs(filepath.Join("..", "build", file))
	if err != nil {
		panic(err)
	}
	return path
}

// stopOnSignal removes everything when the run is interrupted. A run that is killed is swept by the next one.
func stopOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		received := <-signals
		removeDaemons()
		os.Exit(complain("ended by %v", received))
	}()
}

// withDefaultSignals lets what this process starts have the default for the signals that it was started to ignore, as under
// nohup: containerd, the shims and the containers would inherit that, and tests tell what a command ignores. A signal that is
// caught is the default's after an exec, other than one that is ignored.
func withDefaultSignals() {
	// Go's runtime catches all the others.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// patience makes a limit that only bounds hangs fit a slow machine: RICH_TEST_PATIENCE says how many times slower it is.
func patience(limit time.Duration) time.Duration {
	times, err := strconv.Atoi(envOr("RICH_TEST_PATIENCE", "1"))
	if err != nil {
		panic(err)
	}
	return limit * time.Duration(times)
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
		time.Sleep(20 * time.Millisecond)
	}
}

// readLines returns the lines of a file.
func readLines(t testing.TB, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
}

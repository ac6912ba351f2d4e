package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestComponentAndHooks has a component that the node offers and hooks of the pod run around the command, chosen by annotations.
func TestComponentAndHooks(t *testing.T) {
	t.Parallel()
	const components = "/etc/containerd/rich/components.d"
	definition := filepath.Join(components, "answer.toml")
	served := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(components, 0o755),
		os.WriteFile(filepath.Join(served, "page"), []byte("of the node\n"), 0o644),
		os.WriteFile(definition, fmt.Appendf(nil, "directory = %q\nexec = [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"127.0.0.1:9100\"]\n"+
			"start = \"before\"\nready = \"tcp:9100\"\nrequired = true\n", served), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(definition) })

	pod := systemdPod(t, "sh", "-c", "cat /host/log; until [ -e /host/end ]; do sleep 0.2; done; exit 3")
	dir := onHost(t, pod)
	pod.Annotations["rich.containerd.io/components"] = "answer"
	pod.Annotations["rich.containerd.io/prestart"] = `[{"path":"/bin/sh","args":["sh","-c","echo before >/host/log"]}]`
	pod.Annotations["rich.containerd.io/app.poststop"] = `[{"path":"/bin/sh","args":["sh","-c","echo $RICH_EXIT_CODE $RICH_EXIT_REASON >>/host/log"]}]`
	ready(t, pod)
	eventually(t, podLimit, "the command runs", func() error {
		if text := logs(t, pod.Name, "app"); text != "before\n" {
			return fmt.Errorf("the log is %q", text)
		}
		return nil
	})
	want(t, "answer", printed(t, pod.Name, "app", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:9100/page"), "of the node")
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if end := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app"); end.ExitCode != 3 {
		t.Errorf("ended with %d", end.ExitCode)
	}
	want(t, "hooks", readFile(t, dir, "log"), "before\n3 exit\n")
}

package kubernetes

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// pid1 returns the name of a container's pid 1.
func pid1(t testing.TB, pod, container string) string {
	t.Helper()
	return printed(t, pod, container, "cat", "/proc/1/comm")
}

// TestInitByAnnotation has the annotation of the pod choose for all containers, and that of one container for it alone.
func TestInitByAnnotation(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Annotations[initAnnotation] = "systemd"
	pod.Annotations["rich.containerd.io/plain.init"] = "none"
	pod.Annotations["rich.containerd.io/small.init"] = "dumb-init"
	pod.Spec.Containers = append(pod.Spec.Containers,
		container("second", imageBookworm, untilTerm...),
		container("plain", imageBookworm, untilTerm...),
		container("small", imageBusybox, untilTerm...))
	ready(t, pod)
	for name, init := range map[string]string{"app": "systemd", "second": "systemd", "plain": "sh", "small": "dumb-init"} {
		want(t, "pid 1 of "+name, pid1(t, pod.Name, name), init)
	}
	// Both have an sshd, and the pod has one port 22.
	for _, name := range []string{"app", "second"} {
		booted(t, pod.Name, name)
		want(t, "cron of "+name, printed(t, pod.Name, name, "systemctl", "is-active", "cron"), "active")
	}
	// One network and one host name for all, as in any pod.
	want(t, "host name", printed(t, pod.Name, "app", "hostname"), pod.Name)
}

// TestInitOfOneContainer has an annotation only for one container: the sidecar is what auto makes of it.
func TestInitOfOneContainer(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Annotations["rich.containerd.io/app.init"] = "systemd"
	pod.Spec.Containers = append(pod.Spec.Containers, container("sidecar", imageBusybox, untilTerm...))
	ready(t, pod)
	want(t, "pid 1 of app", pid1(t, pod.Name, "app"), "systemd")
	want(t, "pid 1 of the sidecar", pid1(t, pod.Name, "sidecar"), "dumb-init")
}

// TestInitByDefault has no annotation: an image with systemd gets it, one without an init gets dumb-init.
func TestInitByDefault(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Spec.Containers = append(pod.Spec.Containers, container("small", imageBusybox, untilTerm...))
	ready(t, pod)
	want(t, "pid 1 of Debian", pid1(t, pod.Name, "app"), "systemd")
	want(t, "pid 1 of busybox", pid1(t, pod.Name, "small"), "dumb-init")
}

// TestInitContainer has rich init containers: they end as their command does, in order, and the pod goes on or not.
func TestInitContainer(t *testing.T) {
	t.Parallel()
	t.Run("succeeds", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "cat", "/data/first")
		mount := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		first := container("first", imageBookworm, "sh", "-c", "cat /proc/1/comm >/data/first")
		first.VolumeMounts, pod.Spec.Containers[0].VolumeMounts = mount, mount
		pod.Spec.InitContainers = []corev1.Container{first}
		want(t, "output", output(t, pod), "systemd\n")
	})
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "true")
		pod.Spec.InitContainers = []corev1.Container{container("first", imageBookworm, "sh", "-c", "exit 42")}
		ended := finish(t, pod)
		if code := ending(t, ended, "first").ExitCode; code != 42 {
			t.Errorf("the init container ended with %d, want 42", code)
		}
		if state := ended.Status.ContainerStatuses[0].State; state.Waiting == nil {
			t.Errorf("the container has started: %v", state)
		}
	})
	t.Run("sidecar", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "true")
		always := corev1.ContainerRestartPolicyAlways
		sidecar := container("sidecar", imageBookworm, untilTerm...)
		sidecar.RestartPolicy = &always
		pod.Spec.InitContainers = []corev1.Container{sidecar}
		ended := finish(t, pod)
		if code := ending(t, ended, "sidecar").ExitCode; code != 0 {
			t.Errorf("the sidecar ended with %d, want 0", code)
		}
	})
}

// TestBadAnnotation has the error of Create reach who looks at the pod.
func TestBadAnnotation(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, "true")
	pod.Annotations[initAnnotation] = "sytemd"
	ended := finish(t, pod)
	end := ending(t, ended, "app")
	want(t, "reason", end.Reason, "StartError")
	wantIn(t, "message", end.Message, `annotation rich.containerd.io/init: value "sytemd"`, `the nearest is "systemd"`)
	wantIn(t, "events", events(t, pod.Name), `the nearest is "systemd"`)
}

// TestOtherAnnotations has only the annotations of the drop-in reach the runtime, in the bundles of the sandbox and of the
// container.
func TestOtherAnnotations(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Annotations[initAnnotation] = "systemd"
	pod.Annotations["other.example/init"] = "of-another"
	found := ready(t, pod)
	bundles, err := filepath.Glob("/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/config*.json")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, file := range bundles {
		// Bundles of other pods come and go.
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || !strings.Contains(string(content), string(found.UID)) {
			continue
		}
		var bundle struct{ Annotations map[string]string }
		if err := errors.Join(err, json.Unmarshal(content, &bundle)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		kinds[bundle.Annotations["io.kubernetes.cri.container-type"]+" "+filepath.Base(file)] = true
		want(t, initAnnotation+" in "+file, bundle.Annotations[initAnnotation], "systemd")
		if text := string(content); strings.Contains(text, "other.example") || strings.Contains(text, "of-another") {
			t.Errorf("%s has the annotation of another: %v", file, bundle.Annotations)
		}
	}
	for _, kind := range []string{"sandbox config.json", "container config.json", "container config.orig.json"} {
		if !kinds[kind] {
			t.Errorf("no %s of pod %s among %v", kind, pod.Name, kinds)
		}
	}
}

// events returns the messages of the events of a pod.
func events(t testing.TB, pod string) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "get", "events", "--field-selector=involvedObject.name="+pod, "--output=jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}"))
}

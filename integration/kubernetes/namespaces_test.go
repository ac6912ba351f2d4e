package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestSharedProcessNamespace refuses systemd where it cannot be pid 1, and takes dumb-init if it may choose.
func TestSharedProcessNamespace(t *testing.T) {
	t.Parallel()
	for name, share := range map[string]func(*corev1.PodSpec){
		"pod":  func(s *corev1.PodSpec) { s.ShareProcessNamespace = ptr(true) },
		"host": func(s *corev1.PodSpec) { s.HostPID = true },
	} {
		t.Run(name+" systemd", func(t *testing.T) {
			t.Parallel()
			pod := systemdPod(t, "true")
			share(&pod.Spec)
			wantRefused(t, pod, `asks for init "systemd", which has to be pid 1 of a pid namespace of its own`, `or set init to "dumb-init"`)
		})
		t.Run(name+" auto", func(t *testing.T) {
			t.Parallel()
			pod := richPod(t, imageBookworm, "sh", "-c", "cat /proc/1/comm; cat /proc/$(ps -o ppid= -p $$ | tr -d ' ')/comm")
			share(&pod.Spec)
			text := strings.Fields(output(t, pod))
			if len(text) != 2 || text[0] == "dumb-init" || text[1] != "dumb-init" {
				t.Errorf("pid 1 and the CMD's parent are %q", text)
			}
		})
	}
}

// TestHostNetwork boots systemd in the node's network namespace, which it leaves as it was.
func TestHostNetwork(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		pod.Spec.HostNetwork = true
		ready(t, pod)
		wantIn(t, "links", printed(t, pod.Name, "app", "ip", "-o", "link"), " node0@")
		wantIn(t, "addresses", printed(t, pod.Name, "app", "ip", "-o", "address"), nodeAddress)
	})
}

// TestHostUsersFalse boots systemd in a user namespace of the pod's own.
func TestHostUsersFalse(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "test $(cat /proc/1/comm) = sh || systemctl is-system-running --wait; "+
			"read inside outside count </proc/self/uid_map; echo $inside $count; test $outside != 0 && echo mapped; "+
			"echo written >/data/file && stat -c %u /data/file /var/run/secrets/kubernetes.io/serviceaccount/namespace")
		pod.Spec.HostUsers = ptr(false)
		withVolume(pod, "data", "/data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		text := output(t, pod)
		if pod.Annotations[initAnnotation] == "systemd" {
			var found bool
			if text, found = strings.CutPrefix(text, "running\n"); !found {
				t.Errorf("systemd is not running: %q", text)
			}
		}
		want(t, "output", text, "0 65536\nmapped\n0\n0\n")
	})
}

// TestPrivileged compares what all of the machine shares before, while and after systemd runs with every right: settings
// of the kernel, terminals, cgroup hierarchies, modules, and the cgroups of the node.
func TestPrivileged(t *testing.T) {
	look := func() state {
		t.Helper()
		kernel, err := lookAtKernel()
		if err != nil {
			t.Fatal(err)
		}
		host, err := lookAtHost("/nothing-of-this-name")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range host {
			// The pod's own network is no matter here.
			if strings.HasPrefix(line, "cgroup ") || strings.HasPrefix(line, "mount ") {
				kernel = append(kernel, line)
			}
		}
		return kernel
	}
	// The kubelet makes the cgroups of its classes with the first pod.
	output(t, plainPod(t, imageBookworm, "true"))
	before := look()
	pod := systemdPod(t, untilTerm...)
	pod.Name += "-systemd"
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)}
	ready(t, pod)
	want(t, "state", booted(t, pod.Name, "app"), "running")
	if diff := before.diff(look()); diff != "" {
		t.Errorf("while it runs (- before, + now):\n%s", diff)
	}
	// A terminal of the host, which the container can see, is nobody's controlling terminal in it.
	want(t, "gettys", printed(t, pod.Name, "app", "sh", "-c", "ps -eo comm= | grep -c getty || :"), "0")
	kubectl(t, "delete", "pod", pod.Name)
	if diff := before.diff(look()); diff != "" {
		t.Errorf("afterwards (- before, + now):\n%s", diff)
	}
}

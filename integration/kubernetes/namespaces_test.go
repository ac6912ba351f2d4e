package kubernetes

import (
	"errors"
	"os"
	"slices"
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
				t.Errorf("pid 1 and the command's parent are %q", text)
			}
		})
	}
}

// TestHostNetwork boots systemd in the node's network namespace, which it leaves as it was: links, addresses, routes, and
// the settings below /proc/sys/net. Nothing else may run at the same time.
func TestHostNetwork(t *testing.T) {
	for name, newPod := range map[string]podMaker{
		"plain":   func(t testing.TB, command ...string) *corev1.Pod { return plainPod(t, imageBookworm, command...) },
		"systemd": systemdPod,
	} {
		t.Run(name, func(t *testing.T) {
			pod := newPod(t, untilTerm...)
			pod.Spec.HostNetwork = true
			unchanged(t, lookAtNetwork, func() {
				ready(t, pod)
				if name == "systemd" {
					booted(t, pod.Name, "app")
				}
				wantIn(t, "links", printed(t, pod.Name, "app", "ip", "-o", "link"), " node0@")
				wantIn(t, "addresses", printed(t, pod.Name, "app", "ip", "-o", "address"), nodeAddress)
			}, func() { kubectl(t, "delete", "pod", pod.Name) })
		})
	}
}

// unchanged looks before a pod, while it runs, and when it is gone.
func unchanged(t *testing.T, look func() (state, error), run, end func()) {
	t.Helper()
	see := func() state {
		t.Helper()
		seen, err := look()
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	before := see()
	run()
	if diff := before.diff(see()); diff != "" {
		t.Errorf("while it runs (- before, + now):\n%s", diff)
	}
	end()
	if diff := before.diff(see()); diff != "" {
		t.Errorf("afterwards (- before, + now):\n%s", diff)
	}
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
// of the kernel, terminals and who uses them, cgroup hierarchies, modules, and the cgroups of the node. With the node's
// network it is that, too.
func TestPrivileged(t *testing.T) {
	// The kubelet makes the cgroups of its classes with the first pod.
	first := plainPod(t, imageBookworm, "true")
	output(t, first)
	remove(t, first.Name)
	for name, change := range map[string]func(*corev1.Pod){
		"own network":         func(*corev1.Pod) {},
		"network of the node": func(pod *corev1.Pod) { pod.Spec.HostNetwork = true },
		"volume at run": func(pod *corev1.Pod) {
			withVolume(pod, "run", "/run", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			look := func() (state, error) {
				// Kernel, cgroups and mounts: the other lines are of the pod's own network, and of its files.
				host, err := lookAtHost("/nothing-of-this-name")
				found := slices.DeleteFunc(host, func(line string) bool {
					return strings.HasPrefix(line, "link ") || strings.HasPrefix(line, "firewall ") || strings.HasPrefix(line, "file ")
				})
				users, usersErr := lookAtUsers()
				network, networkErr := lookAtNetwork()
				// The pod has the node's name if it has the node's network.
				name, nameErr := os.Hostname()
				return append(slices.Concat(found, users, network), "name "+name), errors.Join(err, usersErr, networkErr, nameErr)
			}
			pod := systemdPod(t, untilTerm...)
			change(pod)
			pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)}
			unchanged(t, look, func() {
				ready(t, pod)
				want(t, "state", booted(t, pod.Name, "app"), "running")
				// It could write what it leaves alone, and has the terminals that the machine has.
				printed(t, pod.Name, "app", "test", "-w", "/proc/sys/kernel/panic")
				if _, err := os.Stat("/dev/tty1"); err == nil {
					printed(t, pod.Name, "app", "test", "-c", "/dev/tty1")
				}
				want(t, "gettys", printed(t, pod.Name, "app", "sh", "-c", "ps -eo comm= | grep -c getty || :"), "0")
			}, func() { kubectl(t, "delete", "pod", pod.Name) })
		})
	}
}

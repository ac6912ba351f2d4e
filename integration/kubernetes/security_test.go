package kubernetes

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func ptr[T any](value T) *T { return &value }

// whoAmI prints the credentials of the command.
const whoAmI = `id -u; id -g; id -G | tr ' ' '\n' | sort -n | tr '\n' ' '; echo; grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status | tr -s '\t ' ' '`

// The node's administrator lets users have an init that is root, which some tests need.
const (
	hostFile      = "/etc/containerd/rich.toml"
	allowRootInit = "root-init = \"explicit\"\n"
)

// TestT9SecurityContext has no pod exceed its security context on a node whose administrator has said nothing. Not
// parallel: it changes the node.
func TestT9SecurityContext(t *testing.T) {
	if err := os.Remove(hostFile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(hostFile, []byte(allowRootInit), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	user := &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000), RunAsGroup: ptr[int64](1001), RunAsNonRoot: ptr(true)}
	t.Run("init", func(t *testing.T) {
		pod := systemdPod(t, "true")
		pod.Spec.SecurityContext = user
		wantRefused(t, pod, `value 1000: init "systemd" has to run as root, which root-init="never" forbids`, "the node's administrator", hostFile)
	})
	t.Run("raised", func(t *testing.T) {
		pod := systemdPod(t, "true")
		pod.Annotations["rich.containerd.io/root-init"] = "explicit"
		pod.Spec.SecurityContext = user
		wantRefused(t, pod, "annotation rich.containerd.io/root-init", `value "explicit"`, hostFile)
	})
	t.Run("hook as root", func(t *testing.T) {
		pod := richPod(t, imageBookworm, "true")
		pod.Annotations["rich.containerd.io/prestart"] = `[{"path":"/bin/true","user":"0"}]`
		pod.Spec.SecurityContext = user
		wantRefused(t, pod, "annotation rich.containerd.io/prestart: hook 1", hostFile)
	})
	t.Run("hook", func(t *testing.T) {
		pod := richPod(t, imageBookworm, "sh", "-c", "cat /data/hook; cat /proc/1/comm")
		pod.Annotations["rich.containerd.io/prestart"] = `[{"path":"/bin/sh","args":["sh","-c","echo $(id -u) $(id -g) >/data/hook"]}]`
		pod.Spec.SecurityContext = user.DeepCopy()
		pod.Spec.SecurityContext.FSGroup = ptr[int64](2000)
		withVolume(pod, "data", "/data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		want(t, "output", output(t, pod), "1000 1001\ndumb-init\n")
	})
	t.Run("no new privileges", func(t *testing.T) {
		pod := systemdPod(t, "sh", "-c", "systemctl is-system-running --wait; grep -h NoNewPrivs: /proc/1/status /proc/self/status | cut -f2 | tr '\\n' ' '")
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false)}
		want(t, "output", output(t, pod), "running\n1 1 ")
	})
}

// TestUser has the command run as the pod's security context says, whatever pid 1 is.
func TestUser(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", whoAmI+"; stat -c %g /data; echo >/data/file; stat -c '%u %g' /data/file; cat /proc/1/comm; stat -c '%u %g' /proc/1")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: ptr[int64](1000), RunAsGroup: ptr[int64](1001), RunAsNonRoot: ptr(true), FSGroup: ptr[int64](2000),
			SupplementalGroups: []int64{3000}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false)}
		withVolume(pod, "data", "/data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		init := []string{"sh", "1000 1001"}
		if pod.Annotations[initAnnotation] == "systemd" {
			init = []string{"systemd", "0 0"}
		}
		want(t, "output", output(t, pod), strings.Join(append([]string{
			"1000", "1001", "1001 2000 3000 ", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "2000", "1000 2000",
		}, init...), "\n")+"\n")
	})
}

// TestUserChoosesInit: without an annotation a pod that is not root gets no init that is.
func TestUserChoosesInit(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000), RunAsNonRoot: ptr(true)}
	ready(t, pod)
	want(t, "pid 1", pid1(t, pod.Name, "app"), "dumb-init")
	want(t, "user of pid 1", printed(t, pod.Name, "app", "stat", "-c", "%u", "/proc/1"), "1000")
}

// TestRootInitNever has the refusal reach who looks at the pod, with the way out.
func TestRootInitNever(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, "true")
	pod.Annotations["rich.containerd.io/root-init"] = "never"
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000), RunAsNonRoot: ptr(true)}
	wantRefused(t, pod, `value 1000: init "systemd" has to run as root, which root-init="never" forbids`, `or set init to "dumb-init"`)
}

// wantRefused creates a pod that the runtime refuses, and looks for parts of the error in its state and its events.
func wantRefused(t testing.TB, pod *corev1.Pod, parts ...string) {
	t.Helper()
	end := ending(t, finish(t, pod), "app")
	want(t, "reason", end.Reason, "StartError")
	wantIn(t, "message", end.Message, parts...)
	wantIn(t, "events", events(t, pod.Name), parts...)
}

// TestSeccomp boots systemd with the runtime's seccomp profile, which also holds for the services.
func TestSeccomp(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, "sh", "-c", "cat /proc/1/comm; systemctl is-system-running --wait; grep Seccomp: /proc/1/status /proc/self/status | cut -f2 | tr '\\n' ' '")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	want(t, "output", output(t, pod), "systemd\nrunning\n2 2 ")
}

// TestNoCapabilities drops all: root's systemd does boot, dumb-init does not care, and what cannot work is refused.
func TestNoCapabilities(t *testing.T) {
	t.Parallel()
	none := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	t.Run("systemd", func(t *testing.T) {
		t.Parallel()
		pod := kept(systemdPod(t, untilTerm...))
		pod.Spec.Containers[0].SecurityContext = none
		ready(t, pod)
		want(t, "capabilities of pid 1", printed(t, pod.Name, "app", "grep", "-E", "^Cap(Eff|Bnd):", "/proc/1/status"),
			"CapEff:\t0000000000000000\nCapBnd:\t0000000000000000")
		// Debian's dbus-daemon has to change its user. logind waits for it 90 s, again and again, and systemd with it.
		eventually(t, podLimit, "the services have started or failed", func() error {
			got := execute(t, pod.Name, "app", "systemctl", "is-active", "cron", "rsyslog", "ssh", "rich-app", "dbus").stdout
			if got != "active\nactive\nactive\nactive\nfailed\n" {
				return fmt.Errorf("they are %q", got)
			}
			return nil
		})
		want(t, "state", execute(t, pod.Name, "app", "systemctl", "is-system-running").stdout, "starting\n")
		if end := ending(t, deleted(t, pod.Name), "app"); end.ExitCode != 0 {
			t.Errorf("the command handles SIGTERM, but the container ended with %d", end.ExitCode)
		}
	})
	t.Run("dumb-init", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "sh", "-c", whoAmI+"; cat /proc/1/comm; grep CapEff: /proc/1/status")
		pod.Annotations[initAnnotation] = "dumb-init"
		pod.Spec.Containers[0].SecurityContext = none
		wantIn(t, "output", output(t, pod), "CapEff: 0000000000000000", "\ndumb-init\nCapEff:\t0000000000000000\n")
	})
	t.Run("user", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "true")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr[int64](1000)}
		pod.Spec.Containers[0].SecurityContext = none
		wantRefused(t, pod, "CAP_SETGID", "CAP_SETUID", "dumb-init")
	})
}

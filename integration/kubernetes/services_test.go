package kubernetes

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// shell runs a script on the node.
func shell(t testing.TB, script string, arguments ...string) string {
	t.Helper()
	text, err := runWithin(podLimit, exec.Command("bash", append([]string{"-euc", script, "bash"}, arguments...)...))
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, text)
	}
	return text
}

// hideEnabled covers the links by which Debian enables cron, rsyslog and sshd: in the container nothing starts them.
func hideEnabled(pod *corev1.Pod) {
	withVolume(pod, "wants", "/etc/systemd/system/multi-user.target.wants", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
}

// TestServicesByAnnotation has services that nothing enables run in the container whose annotation names them, and not in
// its twin without one.
func TestServicesByAnnotation(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	pod.Annotations["rich.containerd.io/app.services"] = "cron, ssh.service"
	hideEnabled(pod)
	twin := pod.Spec.Containers[0].DeepCopy()
	twin.Name = "twin"
	pod.Spec.Containers = append(pod.Spec.Containers, *twin)
	ready(t, pod)
	for name, expected := range map[string]string{"app": "active\nactive\ninactive\n", "twin": "inactive\ninactive\ninactive\n"} {
		want(t, "state of "+name, booted(t, pod.Name, name), "running")
		want(t, "enabled in "+name, execute(t, pod.Name, name, "systemctl", "is-enabled", "cron").stdout, "disabled\n")
		want(t, "services of "+name, execute(t, pod.Name, name, "systemctl", "is-active", "cron", "ssh", "rsyslog").stdout, expected)
	}
	want(t, "sshd", printed(t, pod.Name, "app", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22; head -c8 <&3"), "SSH-2.0-")
	want(t, "cron of app", printed(t, pod.Name, "app", "ps", "-C", "cron", "-o", "comm="), "cron")
	want(t, "cron of twin", execute(t, pod.Name, "twin", "ps", "-C", "cron", "-o", "comm=").stdout, "")
}

// TestServicesOfPod names the services of all containers of a pod, and a container makes an exception.
func TestServicesOfPod(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	pod.Annotations["rich.containerd.io/services"] = "cron"
	pod.Annotations["rich.containerd.io/other.services"] = "rsyslog"
	hideEnabled(pod)
	other := pod.Spec.Containers[0].DeepCopy()
	other.Name = "other"
	pod.Spec.Containers = append(pod.Spec.Containers, *other)
	ready(t, pod)
	for name, expected := range map[string]string{"app": "active\ninactive\n", "other": "inactive\nactive\n"} {
		booted(t, pod.Name, name)
		want(t, "services of "+name, execute(t, pod.Name, name, "systemctl", "is-active", "cron", "rsyslog").stdout, expected)
	}
}

// TestMaskByAnnotation keeps a service from running that the image enables, also when somebody starts it.
func TestMaskByAnnotation(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	pod.Annotations["rich.containerd.io/mask"] = "cron"
	ready(t, pod)
	want(t, "state", booted(t, pod.Name, "app"), "running")
	want(t, "services", execute(t, pod.Name, "app", "systemctl", "is-active", "cron", "rsyslog", "ssh").stdout, "inactive\nactive\nactive\n")
	if got := execute(t, pod.Name, "app", "systemctl", "start", "cron"); got.code == 0 || !strings.Contains(got.stderr, "masked") {
		t.Errorf("systemctl start cron: %+v", got)
	}
	want(t, "processes", execute(t, pod.Name, "app", "ps", "-C", "cron", "-o", "comm=").stdout, "")
}

// TestServices has cron, rsyslog and sshd of the image work beside the command, as Debian enables them.
func TestServices(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	pod.Spec.Containers[0].ReadinessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(22)}})
	ready(t, pod)
	want(t, "state", booted(t, pod.Name, "app"), "running")
	want(t, "services", printed(t, pod.Name, "app", "systemctl", "is-active", "cron", "rsyslog", "ssh"), "active\nactive\nactive")
	want(t, "process of cron", printed(t, pod.Name, "app", "ps", "-C", "cron", "-o", "comm="), "cron")
	want(t, "sshd", printed(t, pod.Name, "app", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22; head -c8 <&3"), "SSH-2.0-")
	printed(t, pod.Name, "app", "sh", "-c", "echo '* * * * * root echo $(date) >/run/by-cron' >/etc/cron.d/test; logger said by logger")
	eventually(t, podLimit, "rsyslog writes", func() error {
		got := execute(t, pod.Name, "app", "grep", "-h", "said by logger", "/var/log/syslog")
		if got.code != 0 {
			return errors.New(got.stderr)
		}
		return nil
	})
	eventually(t, podLimit, "cron runs a job", func() error {
		if got := execute(t, pod.Name, "app", "cat", "/run/by-cron"); got.code != 0 {
			return errors.New(got.stderr)
		}
		return nil
	})
	// None of it is in the pod's log, which is the command's.
	want(t, "log", strings.TrimSpace(logs(t, pod.Name, "app")), "up")
}

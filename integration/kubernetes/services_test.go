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

// TestServices has cron, rsyslog and sshd of the image work beside the CMD, as Debian enables them.
func TestServices(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	pod.Spec.Containers[0].ReadinessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(22)}})
	ready(t, pod)
	want(t, "state", booted(t, pod.Name, "app"), "running")
	want(t, "services", printed(t, pod.Name, "app", "systemctl", "is-active", "cron", "rsyslog", "ssh"), "active\nactive\nactive")
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
	// None of it is in the pod's log, which is the CMD's.
	want(t, "log", strings.TrimSpace(logs(t, pod.Name, "app")), "up")
}

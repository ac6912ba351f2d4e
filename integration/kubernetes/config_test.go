package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func withVolume(pod *corev1.Pod, name, path string, source corev1.VolumeSource) *corev1.VolumeMount {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
	return &c.VolumeMounts[len(c.VolumeMounts)-1]
}

// oddBytes is what a value of the environment can hold and a unit file could not.
const oddBytes = "a  b\t\"c\" 'd' $HOME ${x} %n %% \\ \\n ; # = é\nsecond line\n "

func makeConfigMap(t testing.TB, data map[string]string) string {
	t.Helper()
	name := podName(t)
	maps := node.client.CoreV1().ConfigMaps(podNamespace)
	if _, err := maps.Create(within(t, podLimit), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kubectl(t, "delete", "configmap", name) })
	return name
}

func makeSecret(t testing.TB, data map[string][]byte) string {
	t.Helper()
	name := podName(t)
	secrets := node.client.CoreV1().Secrets(podNamespace)
	if _, err := secrets.Create(within(t, podLimit), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kubectl(t, "delete", "secret", name) })
	return name
}

// TestEnvironment has values of a ConfigMap, a Secret and the pod itself reach the CMD byte by byte.
func TestEnvironment(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `for name in ODD SECRET POD LIMIT LITERAL; do printenv -0 $name; done; printenv -0 KUBERNETES_SERVICE_PORT`)
		local := corev1.LocalObjectReference{Name: makeConfigMap(t, map[string]string{"ODD": oddBytes})}
		secret := corev1.LocalObjectReference{Name: makeSecret(t, map[string][]byte{"key": []byte(oddBytes + "x")})}
		c := &pod.Spec.Containers[0]
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local}}}
		c.Env = []corev1.EnvVar{
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: secret, Key: "key"}}},
			{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
			{Name: "LITERAL", Value: "pod $(POD)"},
		}
		c.Resources.Limits = memory("200Mi")
		finish(t, pod)
		want(t, "environment", logs(t, pod.Name, "app"), strings.Join([]string{
			oddBytes, oddBytes + "x", pod.Name, "209715200", "pod " + pod.Name, "443", ""}, "\x00"))
	})
}

// TestServiceAccount has the token at its place below /var/run, which an init's own /run must not hide, and a service of
// systemd see it, too.
func TestServiceAccount(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `cd /var/run/secrets/kubernetes.io/serviceaccount && cat namespace && test -s token && grep -c BEGIN ca.crt`)
		want(t, "output", output(t, pod), podNamespace+"1\n")
	})
	t.Run("service", func(t *testing.T) {
		t.Parallel()
		pod := systemdPod(t, "systemd-run", "--wait", "--pipe", "-q", "cat", "/run/secrets/kubernetes.io/serviceaccount/namespace")
		want(t, "output", output(t, pod), podNamespace)
	})
}

// TestVolumes has the kinds of volumes that a kubelet makes itself, with subPath and read-only ones, also below /run and
// /tmp, where an init has its own.
func TestVolumes(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `cat /etc/app.conf /projected/secret /projected/pod; echo; cat /run/config/one
			echo written >/data/file && cat /data/file && echo >/tmp/inner/file && echo >/var/lib/app/file
			echo >/run/config/one || echo refused
			stat -f -c %T /memory; ls /run/config`)
		configMap := makeConfigMap(t, map[string]string{"one": "1\n", "two": "2\n"})
		secret := makeSecret(t, map[string][]byte{"key": []byte("hidden\n")})
		config := corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}}}
		withVolume(pod, "file", "/etc/app.conf", config).SubPath = "two"
		withVolume(pod, "config", "/run/config", config)
		withVolume(pod, "empty", "/data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		withVolume(pod, "inner", "/tmp/inner", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		withVolume(pod, "sub", "/var/lib/app", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}).SubPathExpr = "$(POD)"
		withVolume(pod, "memory", "/memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}})
		withVolume(pod, "projected", "/projected", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Items: []corev1.KeyToPath{{Key: "key", Path: "secret"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "pod", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
		}}})
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		finish(t, pod)
		text := logs(t, pod.Name, "app")
		want(t, "output", strings.Join(strings.Fields(withoutLine(text, "Read-only file system")), " "),
			"2 hidden "+pod.Name+" 1 written refused tmpfs one two")
	})
}

// withoutLine removes the lines that hold text: where stderr comes between the lines of stdout is chance.
func withoutLine(lines, text string) string {
	var kept strings.Builder
	for line := range strings.Lines(lines) {
		// A name without an end of line comes before what the shell says.
		if before, _, found := strings.Cut(line, "sh: "); !found || !strings.Contains(line, text) {
			kept.WriteString(line)
		} else {
			kept.WriteString(before)
		}
	}
	return kept.String()
}

// TestHostFiles has the kubelet's files for names in place under an init.
func TestHostFiles(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `hostname; cat /etc/hostname; grep alias.example /etc/hosts; grep nameserver /etc/resolv.conf; echo message >/dev/termination-log`)
		pod.Spec.Hostname = "other"
		pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"alias.example"}}}
		pod.Spec.DNSPolicy = corev1.DNSNone
		pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.2"}}
		ended := finish(t, pod)
		want(t, "output", logs(t, pod.Name, "app"), "other\nother\n192.0.2.1\talias.example\nnameserver 192.0.2.2\n")
		want(t, "termination message", ending(t, ended, "app").Message, "message\n")
	})
}

// TestReadOnlyRootFilesystem boots systemd where nothing but volumes can be written.
func TestReadOnlyRootFilesystem(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "echo >/file 2>/dev/null || echo refused; echo >/tmp/file && echo written; test $(cat /proc/1/comm) = sh || systemctl is-system-running --wait")
		yes := true
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
		for name, path := range map[string]string{"tmp": "/tmp", "var-tmp": "/var/tmp", "systemd": "/var/lib/systemd", "log": "/var/log", "spool": "/var/spool"} {
			withVolume(pod, name, path, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		}
		text := output(t, pod)
		wantIn(t, "output", text, "refused\nwritten\n")
		if pod.Annotations[initAnnotation] == "systemd" {
			wantIn(t, "state", text, "running\n")
		}
	})
}

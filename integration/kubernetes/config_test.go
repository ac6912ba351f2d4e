package kubernetes

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// TestEnvironment has values of a ConfigMap, a Secret and the pod itself reach the command byte by byte, and no other variable
// than under runc.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	local := corev1.LocalObjectReference{Name: makeConfigMap(t, map[string]string{"ODD": oddBytes})}
	secret := corev1.LocalObjectReference{Name: makeSecret(t, map[string][]byte{"key": []byte(oddBytes + "x")})}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	environment := func(pod *corev1.Pod, name string) []string {
		pod.Name += "-" + name
		pod.Spec.Hostname = "same"
		pod.Annotations["example.com/odd"] = oddBytes + "y"
		c := &pod.Spec.Containers[0]
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local}}}
		c.Env = []corev1.EnvVar{
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: secret, Key: "key"}}},
			{Name: "POD", ValueFrom: field("metadata.name")},
			{Name: "ANNOTATION", ValueFrom: field("metadata.annotations['example.com/odd']")},
			{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
			{Name: "LITERAL", Value: "pod $(POD)"},
		}
		c.Resources.Limits = memory("200Mi")
		decoded, err := base64.StdEncoding.DecodeString(output(t, pod))
		text, found := strings.CutSuffix(string(decoded), "\x00")
		if err != nil || !found {
			t.Errorf("the environment of %s is %q, without an end: %v", pod.Name, text, err)
		}
		// The names of the pods are all that may differ.
		variables := strings.Split(strings.ReplaceAll(text, pod.Name, "THE-POD"), "\x00")
		slices.Sort(variables)
		return variables
	}
	// What the shell was started with, and nothing that it adds. The kubelet makes one $ of two. What prints a log would stumble
	// over zero bytes.
	const print = "base64 --wrap=0 /proc/$$$$/environ"
	plain := environment(witnessed(t, plainPod(t, imageBookworm, "sh", "-c", print), "sh"), "plain")
	rich := environment(witnessed(t, systemdPod(t, "sh", "-c", print), "systemd"), "systemd")
	if !slices.Equal(rich, plain) {
		t.Errorf("the environment is %q, want as under runc %q", rich, plain)
	}
	for _, variable := range []string{
		"ODD=" + oddBytes, "SECRET=" + oddBytes + "x", "ANNOTATION=" + oddBytes + "y", "POD=THE-POD", "LITERAL=pod THE-POD",
		"LIMIT=209715200", "HOSTNAME=same", "KUBERNETES_SERVICE_PORT=443",
	} {
		if !slices.Contains(rich, variable) {
			t.Errorf("%q is not in %q", variable, rich)
		}
	}
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
		// Only systemd can start such a service.
		pod := systemdPod(t, "systemd-run", "--wait", "--pipe", "-q", "cat", "/run/secrets/kubernetes.io/serviceaccount/namespace")
		want(t, "output", output(t, pod), podNamespace)
	})
}

// TestVolumes has the kinds of volumes that a kubelet makes itself, with subPath and read-only ones, also below /run and
// /tmp, where an init has its own. What the command writes has to be in the kubelet's folders, and the other way round.
func TestVolumes(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `exec 2>&1
			cat /etc/app.conf /projected/secret /projected/pod; echo; cat /run/config/one
			for dir in /data /tmp/inner /run/inner /var/lib/app /memory; do echo written to $dir >$dir/file; done
			for file in /run/config/one /etc/app.conf /projected/secret; do (echo >$file); done
			stat -f -c %T /memory; ls /run/config
			for dir in /data /tmp/inner /run/inner /var/lib/app /memory; do
				until [ -e $dir/answer ]; do sleep 0.2; done
				cat $dir/answer
			done
			exit 8`)
		configMap := makeConfigMap(t, map[string]string{"one": "1\n", "two": "2\n"})
		secret := makeSecret(t, map[string][]byte{"key": []byte("hidden\n")})
		config := corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}}}
		empty := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		withVolume(pod, "file", "/etc/app.conf", config).SubPath = "two"
		withVolume(pod, "config", "/run/config", config)
		withVolume(pod, "empty", "/data", empty)
		withVolume(pod, "in-tmp", "/tmp/inner", empty)
		withVolume(pod, "in-run", "/run/inner", empty)
		withVolume(pod, "sub", "/var/lib/app", empty).SubPathExpr = "$(POD)"
		withVolume(pod, "memory", "/memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}})
		withVolume(pod, "projected", "/projected", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Items: []corev1.KeyToPath{{Key: "key", Path: "secret"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "pod", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
		}}})
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		found := ready(t, pod)
		folder := filepath.Join("/var/lib/kubelet/pods", string(found.UID), "volumes/kubernetes.io~empty-dir")
		for _, volume := range []struct{ folder, mountPoint string }{
			{"empty", "/data"}, {"in-tmp", "/tmp/inner"}, {"in-run", "/run/inner"}, {"sub/" + pod.Name, "/var/lib/app"}, {"memory", "/memory"},
		} {
			eventually(t, podLimit, "the kubelet has what was written to "+volume.mountPoint, func() error {
				content, err := os.ReadFile(filepath.Join(folder, volume.folder, "file"))
				if err == nil && string(content) != "written to "+volume.mountPoint+"\n" {
					err = fmt.Errorf("it has %q", content)
				}
				return err
			})
			// In one step: the command reads it as soon as it is there.
			answer := filepath.Join(folder, volume.folder, "answer")
			if err := errors.Join(os.WriteFile(answer+".part", []byte("answer in "+volume.folder+"\n"), 0o644), os.Rename(answer+".part", answer)); err != nil {
				t.Fatal(err)
			}
		}
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 8 {
			t.Errorf("ended with %d, want 8", code)
		}
		want(t, "output", logs(t, pod.Name, "app"), "2\nhidden\n"+pod.Name+"\n1\n"+
			"sh: 4: cannot create /run/config/one: Read-only file system\n"+
			"sh: 4: cannot create /etc/app.conf: Read-only file system\n"+
			"sh: 4: cannot create /projected/secret: Read-only file system\n"+
			"tmpfs\none\ntwo\n"+
			"answer in empty\nanswer in in-tmp\nanswer in in-run\nanswer in sub/"+pod.Name+"\nanswer in memory\n")
	})
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
		pod := newPod(t, "sh", "-c", "{ echo >/file; } 2>/dev/null || echo refused; echo >/tmp/file && echo written; test $(cat /proc/1/comm) = sh || systemctl is-system-running --wait")
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

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestResize changes the limits of a running container, which is not restarted.
func TestResize(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("200Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
		found := ready(t, pod)
		id := found.Status.ContainerStatuses[0].ContainerID
		patch := `{"spec":{"containers":[{"name":"app","resources":{"limits":{"memory":"300Mi","cpu":"700m"},"requests":{"memory":"300Mi","cpu":"700m"}}}]}}`
		_, err := node.client.CoreV1().Pods(podNamespace).Patch(within(t, podLimit), pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "resize")
		if err != nil {
			t.Fatal(err)
		}
		found = waitFor(t, pod.Name, "is resized", func(pod *corev1.Pod) error {
			s := pod.Status.ContainerStatuses[0]
			if s.Resources != nil && s.Resources.Limits.Memory().String() == "300Mi" && s.Resources.Limits.Cpu().String() == "700m" {
				return nil
			}
			return fmt.Errorf("%v %v", s.Resources, pod.Status.Conditions)
		})
		if s := found.Status.ContainerStatuses[0]; s.ContainerID != id || s.RestartCount != 0 {
			t.Errorf("was restarted: %v", s)
		}
		limits := nodeLimits(t, id)
		if limits.memory != 300<<20 || limits.quota != 70000 {
			t.Errorf("limits of the cgroup: %+v", limits)
		}
	})
}

// TestStatistics has the kubelet know what a rich container uses.
func TestStatistics(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		ready(t, pod)
		eventually(t, podLimit, "statistics of the container", func() error {
			raw, err := node.client.CoreV1().RESTClient().Get().Resource("nodes").Name(nodeName).SubResource("proxy").Suffix("stats/summary").DoRaw(context.Background())
			if err != nil {
				return err
			}
			var summary struct {
				Pods []struct {
					PodRef     struct{ Name string }
					Containers []struct {
						CPU    struct{ UsageCoreNanoSeconds uint64 }
						Memory struct{ WorkingSetBytes uint64 }
					}
				}
			}
			if err := json.Unmarshal(raw, &summary); err != nil {
				return err
			}
			for _, p := range summary.Pods {
				if p.PodRef.Name == pod.Name && len(p.Containers) == 1 && p.Containers[0].CPU.UsageCoreNanoSeconds > 0 && p.Containers[0].Memory.WorkingSetBytes > 0 {
					return nil
				}
			}
			return errors.New("there are none")
		})
	})
}

// TestContainerdKilled kills containerd under running pods: they go on, can be used again, and end as usual.
func TestContainerdKilled(t *testing.T) {
	pods := twoPods(t)
	node.containerd.kill()
	if err := node.containerd.start(); err != nil {
		t.Fatal(err)
	}
	if err := node.containerdReady(); err != nil {
		t.Fatal(err)
	}
	stillRun(t, pods)
}

// TestKubeletRestarted does the same with the kubelet.
func TestKubeletRestarted(t *testing.T) {
	pods := twoPods(t)
	node.kubelet.kill()
	if err := node.kubelet.start(); err != nil {
		t.Fatal(err)
	}
	if err := node.kubelet.ready(node.nodeReady); err != nil {
		t.Fatal(err)
	}
	stillRun(t, pods)
}

// twoPods makes a plain and a rich pod.
func twoPods(t *testing.T) []*corev1.Pod {
	plain, rich := plainPod(t, imageBookworm, untilTerm...), systemdPod(t, untilTerm...)
	plain.Name += "-plain"
	pods := []*corev1.Pod{ready(t, plain), ready(t, rich)}
	up(t, plain.Name)
	up(t, rich.Name)
	return pods
}

// stillRun checks that pods have the containers they had, and can be used.
func stillRun(t *testing.T, pods []*corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		eventually(t, podLimit, "exec in "+pod.Name, func() error {
			got, err := tryExecute(within(t, podLimit), pod.Name, &corev1.PodExecOptions{
				Container: "app", Command: []string{"sh", "-c", "exit 4"}, Stdout: true, Stderr: true}, nil)
			if err == nil && got.code != 4 {
				err = fmt.Errorf("exit status %d: %s", got.code, got.stderr)
			}
			return err
		})
		found := waitFor(t, pod.Name, "is ready", isReady)
		before, now := pod.Status.ContainerStatuses[0], found.Status.ContainerStatuses[0]
		if now.ContainerID != before.ContainerID || now.RestartCount != 0 {
			t.Errorf("pod %s was %v and is %v", pod.Name, before, now)
		}
		want(t, "log of "+pod.Name, logs(t, pod.Name, "app"), "up\n")
		kubectl(t, "delete", "pod", pod.Name)
	}
}

// TestDrain evicts rich pods from the node: they end in grace, and come back when the node takes pods again.
func TestDrain(t *testing.T) {
	pod := systemdPod(t, "sh", "-c", "trap 'echo term >>/host/log; exit 0' TERM; echo up >>/host/log; while :; do sleep 0.2; done")
	dir := onHost(t, pod)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	labels := map[string]string{"app": pod.Name}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}
	if _, err := node.client.AppsV1().Deployments(podNamespace).Create(within(t, podLimit), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kubectl(t, "uncordon", nodeName)
		kubectl(t, "delete", "deployment", deployment.Name, "--cascade=foreground")
	})
	available := func() error {
		found, err := node.client.AppsV1().Deployments(podNamespace).Get(context.Background(), deployment.Name, metav1.GetOptions{})
		if err == nil && found.Status.AvailableReplicas != 1 {
			err = fmt.Errorf("%v", found.Status)
		}
		return err
	}
	log := func(expected string) func() error {
		return func() error {
			got, err := os.ReadFile(filepath.Join(dir, "log"))
			if err == nil && string(got) != expected {
				err = fmt.Errorf("the log is %q", got)
			}
			return err
		}
	}
	eventually(t, podLimit, "deployment", available)
	eventually(t, podLimit, "the CMD runs", log("up\n"))
	kubectl(t, "drain", nodeName, "--ignore-daemonsets", "--timeout=150s")
	want(t, "log", readFile(t, dir, "log"), "up\nterm\n")
	kubectl(t, "uncordon", nodeName)
	eventually(t, podLimit, "deployment", available)
	eventually(t, podLimit, "the CMD runs again", log("up\nterm\nup\n"))
}

// TestRuntimeHandler has the kubelet know what the handler can do; without that no pod could have a user namespace.
func TestRuntimeHandler(t *testing.T) {
	t.Parallel()
	found, err := node.client.CoreV1().Nodes().Get(within(t, podLimit), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, handler := range found.Status.RuntimeHandlers {
		if handler.Name == "rich" {
			if f := handler.Features; f == nil || f.UserNamespaces == nil || !*f.UserNamespaces {
				t.Errorf("features: %v", f)
			}
			return
		}
	}
	t.Errorf("no handler rich: %v", found.Status.RuntimeHandlers)
}

type cgroupLimits struct{ memory, quota int64 }

// nodeLimits reads what the kernel keeps a container to, with cgroup v1 or v2.
func nodeLimits(t testing.TB, id string) cgroupLimits {
	t.Helper()
	_, id, _ = strings.Cut(id, "://")
	script := `
		pid=$(ctr -n k8s.io tasks ls 2>/dev/null | awk -v id="$1" '$1 == id { print $2 }')
		v1() { grep -m1 -E "^[0-9]+:([^:]*,)?$1[,:]" "/proc/$pid/cgroup" | cut -d: -f3; }
		if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
			own=/sys/fs/cgroup$(cut -d: -f3 "/proc/$pid/cgroup")
			while [ "${own##*/}" != "$1" ]; do own=${own%/*}; done
			cat "$own/memory.max"; cut -d' ' -f1 "$own/cpu.max"
		else
			cat "/sys/fs/cgroup/memory$(v1 memory)/memory.limit_in_bytes" "/sys/fs/cgroup/cpu$(v1 cpu)/cpu.cfs_quota_us"
		fi`
	text := shell(t, script, id)
	var limits cgroupLimits
	if _, err := fmt.Sscan(text, &limits.memory, &limits.quota); err != nil {
		t.Fatalf("limits %q: %v", text, err)
	}
	return limits
}

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"containerd-shim-rich/integration/daemon"
)

// TestResize changes the limits of a running container, which is not restarted.
func TestResize(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("200Mi"), corev1.ResourceCPU: resource.MustParse("500m"),
		}
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

// TestContainerdKilled kills containerd under running pods.
func TestContainerdKilled(t *testing.T) {
	outage(t, node.containerd, node.containerdReady)
}

// TestKubeletRestarted does the same with the kubelet.
func TestKubeletRestarted(t *testing.T) {
	outage(t, node.kubelet, func() error { return node.kubelet.Ready(readyLimit, node.nodeReady) })
}

// obedient is a command that does what files in /host say: prints a line on both streams, or ends with 7.
var obedient = []string{"sh", "-c", `trap 'echo term >>/host/last; exit 6' TERM
	echo up
	while :; do
		for word in down back; do
			if [ -e /host/$word ]; then echo out $word; echo err $word >&2; rm /host/$word; fi
		done
		if [ -e /host/end ]; then rm /host/end; exit 7; fi
		sleep 0.2
	done`}

// obedientPod is one pod of an outage. In files it finds what to do.
type obedientPod struct {
	*corev1.Pod
	files string
	pid   int
}

// tell has the command do something; done waits until it has.
func (p *obedientPod) tell(t testing.TB, word string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.files, word), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *obedientPod) done(t testing.TB, word string) {
	t.Helper()
	eventually(t, podLimit, p.Name+" has done "+word, func() error {
		if _, err := os.Stat(filepath.Join(p.files, word)); !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
}

// outage kills a program of the node and starts it again, with pods of both runtimes that go on, that end meanwhile, and that
// end and are to be started again. None of them may notice, and nothing may be lost.
func outage(t *testing.T, program *daemon.Daemon, programReady func() error) {
	var goesOn, ends, isRestarted []*obedientPod
	newPod := func(kind string, policy corev1.RestartPolicy) (both []*obedientPod) {
		for name, pod := range map[string]*corev1.Pod{"plain": plainPod(t, imageBookworm, obedient...), "systemd": systemdPod(t, obedient...)} {
			pod.Name += "-" + kind + "-" + name
			pod.Spec.RestartPolicy = policy
			p := &obedientPod{files: onHost(t, pod)}
			p.Pod = ready(t, kept(pod))
			up(t, pod.Name)
			p.pid = taskPid(t, p.Pod)
			both = append(both, p)
		}
		return both
	}
	goesOn = newPod("goes-on", corev1.RestartPolicyNever)
	ends = newPod("ends", corev1.RestartPolicyNever)
	isRestarted = newPod("is-restarted", corev1.RestartPolicyAlways)

	if err := program.Kill(); err != nil {
		t.Error(err)
	}
	back := false
	start := func() {
		back = true
		if err := errors.Join(program.Start(), programReady()); err != nil {
			t.Error(err)
		}
	}
	// All other tests need the program, too.
	defer func() {
		if !back {
			start()
		}
	}()
	for _, p := range goesOn {
		p.tell(t, "down")
		p.done(t, "down")
	}
	for _, p := range slices.Concat(ends, isRestarted) {
		p.tell(t, "end")
		// The kernel has no pid 1 of it any more, so that nobody but the shim knows how it ended.
		eventually(t, podLimit, p.Name+" ends", func() error {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.pid)); !errors.Is(err, os.ErrNotExist) {
				return errors.Join(err, errors.New("its pid 1 is there"))
			}
			return nil
		})
	}
	if start(); t.Failed() {
		return
	}

	wantCode := func(p *obedientPod, end *corev1.ContainerStateTerminated) {
		t.Helper()
		switch {
		case end != nil && end.ExitCode == 7 && end.Reason == "Error":
		// containerd forgets what ended under the stock shim while it was down itself.
		case end != nil && p.Spec.RuntimeClassName == nil && program == node.containerd && end.ExitCode == 255 && end.Reason == "Unknown":
		default:
			t.Errorf("%s ended: %v, want code 7", p.Name, end)
		}
	}
	for _, p := range ends {
		found := waitFor(t, p.Name, "has ended", hasEnded)
		want(t, "phase of "+p.Name, string(found.Status.Phase), string(corev1.PodFailed))
		wantCode(p, found.Status.ContainerStatuses[0].State.Terminated)
		wantSameRun(t, p, found)
	}
	for _, p := range isRestarted {
		found := waitFor(t, p.Name, "is started again", func(pod *corev1.Pod) error {
			if s := pod.Status.ContainerStatuses[0]; s.RestartCount == 0 || s.State.Running == nil {
				return fmt.Errorf("%v", s)
			}
			return nil
		})
		s := found.Status.ContainerStatuses[0]
		if s.RestartCount != 1 {
			t.Errorf("%s was started again %d times, want once", p.Name, s.RestartCount)
		}
		wantCode(p, s.LastTerminationState.Terminated)
		up(t, p.Name)
	}
	for _, p := range goesOn {
		eventually(t, podLimit, "exec in "+p.Name, func() error {
			got, err := tryExecute(within(t, podLimit), p.Name, &corev1.PodExecOptions{
				Container: "app", Command: []string{"sh", "-c", "exit 4"}, Stdout: true, Stderr: true,
			}, nil)
			if err == nil && got.code != 4 {
				err = fmt.Errorf("exit status %d: %s", got.code, got.stderr)
			}
			return err
		})
		wantSameRun(t, p, waitFor(t, p.Name, "is ready", isReady))
		p.tell(t, "back")
		p.done(t, "back")
		for stream, lines := range map[string][]string{"stdout": {"up", "out down", "out back"}, "stderr": {"err down", "err back"}} {
			eventually(t, podLimit, "the log of "+p.Name, func() error {
				if got := logged(t, p.Pod, stream); !slices.Equal(got, lines) {
					return fmt.Errorf("%s is %q, want %q", stream, got, lines)
				}
				return nil
			})
		}
		found := deleted(t, p.Name)
		if end := ending(t, found, "app"); end.ExitCode != 6 {
			t.Errorf("%s ended with %d (%s), want 6", p.Name, end.ExitCode, end.Reason)
		}
		wantSameRun(t, p, found)
		// Not by the log, which the kubelet removes with the container.
		last, err := os.ReadFile(filepath.Join(p.files, "last"))
		if err != nil || string(last) != "term\n" {
			t.Errorf("last words of %s: %q, %v", p.Name, last, err)
		}
	}
}

// wantSameRun checks that a pod has the container that it had at first.
func wantSameRun(t testing.TB, before *obedientPod, now *corev1.Pod) {
	t.Helper()
	if b, n := before.Status.ContainerStatuses[0], now.Status.ContainerStatuses[0]; b.ContainerID != n.ContainerID || n.RestartCount != 0 {
		t.Errorf("%s was %v and is %v", now.Name, b, n)
	}
}

// taskPid is the process of the node that is pid 1 of the pod's first container.
func taskPid(t testing.TB, pod *corev1.Pod) int {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	text := shell(t, `ctr -n k8s.io tasks ls 2>/dev/null | awk -v id="$1" '$1 == id { print $2 }'`, id)
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("task of %s: %v", pod.Name, err)
	}
	return pid
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
	eventually(t, podLimit, "the command runs", log("up\n"))
	kubectl(t, "drain", nodeName, "--ignore-daemonsets", "--timeout=150s")
	want(t, "log", readFile(t, dir, "log"), "up\nterm\n")
	kubectl(t, "uncordon", nodeName)
	eventually(t, podLimit, "deployment", available)
	eventually(t, podLimit, "the command runs again", log("up\nterm\nup\n"))
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

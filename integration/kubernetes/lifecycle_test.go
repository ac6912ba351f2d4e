package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func memory(limit string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
}

// TestJob has a Job end with the command: complete, or failed with its code.
func TestJob(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		for _, c := range []struct {
			name, script string
			condition    batchv1.JobConditionType
			code         int32
		}{
			{"complete", "exit 0", batchv1.JobComplete, 0},
			{"failed", "exit 7", batchv1.JobFailed, 7},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				pod := newPod(t, "sh", "-c", c.script)
				job := &batchv1.Job{
					ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
					Spec: batchv1.JobSpec{BackoffLimit: ptr[int32](0), Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec,
					}},
				}
				if _, err := node.client.BatchV1().Jobs(podNamespace).Create(within(t, podLimit), job, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { kubectl(t, "delete", "job", job.Name, "--cascade=foreground") })
				eventually(t, podLimit, "job "+job.Name+" ends", func() error {
					found, err := node.client.BatchV1().Jobs(podNamespace).Get(context.Background(), job.Name, metav1.GetOptions{})
					if err != nil {
						return err
					}
					for _, condition := range found.Status.Conditions {
						if condition.Type == c.condition && condition.Status == corev1.ConditionTrue {
							return nil
						}
					}
					return fmt.Errorf("%v", found.Status)
				})
				pods, err := node.client.CoreV1().Pods(podNamespace).List(within(t, podLimit), metav1.ListOptions{LabelSelector: "job-name=" + job.Name})
				if err != nil || len(pods.Items) != 1 {
					t.Fatalf("pods of the job: %v, %v", pods, err)
				}
				if end := ending(t, &pods.Items[0], "app"); end.ExitCode != c.code {
					t.Errorf("ended with %d, want %d", end.ExitCode, c.code)
				}
			})
		}
	})
}

// TestCrashLoop has a command that fails be started again, each time with a fresh init, and the kubelet back off.
func TestCrashLoop(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "echo started; exit 5")
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		create(t, pod)
		found := waitFor(t, pod.Name, "backs off", func(pod *corev1.Pod) error {
			s := pod.Status.ContainerStatuses
			if len(s) == 1 && s[0].RestartCount > 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff" {
				return nil
			}
			return fmt.Errorf("%v", s)
		})
		if last := found.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 5 || last.Reason != "Error" {
			t.Errorf("the last run ended: %v", last)
		}
	})
}

// TestOOMKilled has the reason OOMKilled when the command takes more than the limit, though pid 1 survives it.
func TestOOMKilled(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		// tail keeps a line that never ends.
		pod := newPod(t, "sh", "-c", "exec tail -n1 /dev/zero")
		pod.Spec.Containers[0].Resources.Limits = memory("100Mi")
		end := ending(t, finish(t, pod), "app")
		if end.Reason != "OOMKilled" || end.ExitCode != 137 {
			t.Errorf("ended with %d, %s: %s", end.ExitCode, end.Reason, end.Message)
		}
	})
}

// TestEphemeralContainer has a container for debugging join a running pod, and see the processes of one of its containers.
func TestEphemeralContainer(t *testing.T) {
	t.Parallel()
	pod := richPod(t, imageBookworm, untilTerm...)
	pod.Annotations["rich.containerd.io/app.init"] = "systemd"
	ready(t, pod)
	if code := debug(t, pod.Name, "debugger", "app", imageBusybox).ExitCode; code != 3 {
		t.Errorf("ended with %d, want 3", code)
	}
	want(t, "pid 1 that the debugger sees", logs(t, pod.Name, "debugger"), "systemd\n")
	want(t, "pid 1 afterwards", pid1(t, pod.Name, "app"), "systemd")
}

// TestEphemeralContainerOfAll has the annotation for all containers hold for those that come later to debug: one with
// systemd in its image gets it, one without fails, as does one that shares the processes of another container.
func TestEphemeralContainerOfAll(t *testing.T) {
	t.Parallel()
	pod := systemdPod(t, untilTerm...)
	ready(t, pod)
	if end := debug(t, pod.Name, "debian", "", imageBookworm); end.ExitCode != 3 {
		t.Errorf("ended with %d (%s), want 3", end.ExitCode, end.Message)
	}
	want(t, "pid 1 of the debugger", logs(t, pod.Name, "debian"), "systemd\n")
	end := debug(t, pod.Name, "busybox", "", imageBusybox)
	want(t, "reason", end.Reason, "StartError")
	wantIn(t, "message", end.Message, `annotation rich.containerd.io/init: value "systemd"`)
	end = debug(t, pod.Name, "target", "app", imageBookworm)
	want(t, "reason", end.Reason, "StartError")
	wantIn(t, "message", end.Message, `asks for init "systemd", which has to be pid 1 of a pid namespace of its own`)
	waitFor(t, pod.Name, "is ready", isReady)
}

// debug adds a container to a running pod, which prints its pid 1 and ends with 3, and tells how it ended.
func debug(t testing.TB, pod, name, target, image string) corev1.ContainerStateTerminated {
	t.Helper()
	found := waitFor(t, pod, "is there", isReady)
	found.Spec.EphemeralContainers = append(found.Spec.EphemeralContainers, corev1.EphemeralContainer{
		TargetContainerName: target,
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: image, ImagePullPolicy: corev1.PullNever,
			Command: []string{"sh", "-c", "cat /proc/1/comm; exit 3"},
		},
	})
	if _, err := node.client.CoreV1().Pods(podNamespace).UpdateEphemeralContainers(within(t, podLimit), pod, found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	found = waitFor(t, pod, "was debugged", func(pod *corev1.Pod) error {
		for _, status := range pod.Status.EphemeralContainerStatuses {
			if status.Name == name && status.State.Terminated != nil {
				return nil
			}
		}
		return fmt.Errorf("%v", pod.Status.EphemeralContainerStatuses)
	})
	return ending(t, found, name)
}

func probe(handler corev1.ProbeHandler) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, TimeoutSeconds: 30, FailureThreshold: 180}
}

// TestProbes has all three probes in all three ways on a command that serves late.
func TestProbes(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "sleep 2; mkdir /www; echo yes >/www/index.html; exec busybox httpd -f -p 8080 -h /www")
		c := &pod.Spec.Containers[0]
		c.StartupProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}})
		c.ReadinessProbe = probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080), Path: "/index.html"}})
		c.ReadinessProbe.FailureThreshold = 1
		c.LivenessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/www/index.html"}}})
		found := ready(t, pod)
		if found.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("was restarted: %v", found.Status.ContainerStatuses)
		}
		printed(t, pod.Name, "app", "mv", "/www/index.html", "/www/gone")
		waitFor(t, pod.Name, "is not ready", func(pod *corev1.Pod) error {
			if isReady(pod) != nil {
				return nil
			}
			return errors.New("is ready")
		})
	})
}

// TestLiveness has a container asked to end and started again when its probe fails.
func TestLiveness(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		c := &pod.Spec.Containers[0]
		c.LivenessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "!", "-e", "/tmp/sick"}}})
		c.LivenessProbe.FailureThreshold = 1
		ready(t, pod)
		up(t, pod.Name)
		printed(t, pod.Name, "app", "touch", "/tmp/sick")
		found := waitFor(t, pod.Name, "is restarted", func(pod *corev1.Pod) error {
			if s := pod.Status.ContainerStatuses; len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil {
				return nil
			}
			return fmt.Errorf("%v", pod.Status.ContainerStatuses)
		})
		if last := found.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 0 {
			t.Errorf("the command handles SIGTERM, but the container ended: %v", last)
		}
	})
}

// onHost gives the pod a folder of the node at /host, which stays when the pod is gone.
func onHost(t testing.TB, pod *corev1.Pod) string {
	t.Helper()
	return nodeFolder(t, pod, "host")
}

func readFile(t testing.TB, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestLifecycleHooks has postStart run at the start and preStop before the command is asked to end, and a command that uses its
// grace for its last words.
func TestLifecycleHooks(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "trap 'sleep 1; echo term >>/host/log; exit 0' TERM; echo cmd >/host/cmd; while :; do sleep 0.2; done")
		dir := onHost(t, pod)
		record := func(word string) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo " + word + " >>/host/log"}}}
		}
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: record("postStart"), PreStop: record("preStop")}
		ready(t, pod)
		eventually(t, podLimit, "the command runs", func() error {
			_, err := os.Stat(filepath.Join(dir, "cmd"))
			return err
		})
		kubectl(t, "delete", "pod", pod.Name)
		want(t, "order", readFile(t, dir, "log"), "postStart\npreStop\nterm\n")
	})
}

// TestGraceIsOver deletes a pod whose command ignores SIGTERM: it is killed, init and all, when the grace is over.
func TestGraceIsOver(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := kept(newPod(t, "sh", "-c", "trap 'echo ignored >>/host/log' TERM; echo up >/host/log; while :; do sleep 0.2; done"))
		dir := onHost(t, pod)
		pod.Spec.TerminationGracePeriodSeconds = ptr[int64](3)
		ready(t, pod)
		eventually(t, podLimit, "the command runs", func() error {
			_, err := os.Stat(filepath.Join(dir, "log"))
			return err
		})
		started := time.Now()
		end := ending(t, deleted(t, pod.Name), "app")
		if took := time.Since(started); took > 3*time.Second+slack {
			t.Errorf("the pod ended after %v", took)
		}
		if end.ExitCode != 137 {
			t.Errorf("ended with %d (%s), want 137", end.ExitCode, end.Reason)
		}
		wantIn(t, "log", readFile(t, dir, "log"), "up\nignored\n")
	})
}

// slack is what the end of a pod may take beyond its grace: enough for any machine, and less than systemd's own limit for
// a service, 90 s.
const slack = time.Minute

// TestServiceIgnoresStop has a service ignore SIGTERM for ever, which systemd lets it. The command gets SIGTERM and ends with
// its own code, and the pod ends in time: before its grace is over, as the init has a limit of 10 s, or else by the
// kubelet's SIGKILL, which does not change the code of a command that has ended.
func TestServiceIgnoresStop(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]int64{"long grace": 30, "short grace": 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := kept(systemdPod(t, "sh", "-c", "trap 'echo term >>/host/cmd; exit 5' TERM; echo up >>/host/cmd; while :; do sleep 0.2; done"))
			pod.Spec.TerminationGracePeriodSeconds = &grace
			dir := onHost(t, pod)
			units := makeConfigMap(t, map[string]string{
				"stubborn.service": "[Service]\nTimeoutStopSec=infinity\n" +
					"ExecStart=/bin/sh -c 'trap \"echo ignored >>/host/service\" TERM; echo up >>/host/service; while :; do sleep 0.2; done'\n",
				"stubborn.conf": "[Unit]\nWants=stubborn.service\n",
			})
			for file, path := range map[string]string{"stubborn.service": "", "stubborn.conf": "multi-user.target.d/"} {
				source := corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: units}}
				withVolume(pod, strings.ReplaceAll(file, ".", "-"), "/etc/systemd/system/"+path+file, corev1.VolumeSource{ConfigMap: &source}).SubPath = file
			}
			ready(t, pod)
			for _, log := range []string{"cmd", "service"} {
				eventually(t, podLimit, log+" runs", func() error {
					_, err := os.Stat(filepath.Join(dir, log))
					return err
				})
			}
			want(t, "service", printed(t, pod.Name, "app", "systemctl", "is-active", "stubborn"), "active")
			started := time.Now()
			end := ending(t, deleted(t, pod.Name), "app")
			if took := time.Since(started); took > time.Duration(grace)*time.Second+slack {
				t.Errorf("the pod ended after %v", took)
			}
			if end.ExitCode != 5 {
				t.Errorf("ended with %d (%s), want 5", end.ExitCode, end.Reason)
			}
			want(t, "command", readFile(t, dir, "cmd"), "up\nterm\n")
			want(t, "service", readFile(t, dir, "service"), "up\nignored\n")
		})
	}
}

// TestForcedDelete has nothing of the pod stay on the node after delete --force, which does not wait for it.
func TestForcedDelete(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
		found := ready(t, pod)
		kubectl(t, "delete", "pod", pod.Name, "--force", "--grace-period=0")
		eventually(t, podLimit, "the node is clean", func() error {
			if _, err := os.Stat("/var/lib/kubelet/pods/" + string(found.UID)); !errors.Is(err, os.ErrNotExist) {
				return errors.Join(err, errors.New("the pod's folder is still there"))
			}
			return nil
		})
	})
}

package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

// The images that the Makefile builds.
const (
	imageBookworm = "localhost/debian-bookworm:latest" // systemd, cron, rsyslog, sshd
	imageBusybox  = "localhost/busybox:latest"         // no init
)

// podLimit bounds what a pod may take for anything; it is for hangs only.
const podLimit = 3 * time.Minute

const initAnnotation = "rich.containerd.io/init"

// untilTerm is a command that stays until SIGTERM and then ends with 0.
var untilTerm = []string{"sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.2; done"}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

func podName(t testing.TB) string {
	name := notInName.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-")
	return strings.Trim(name[:min(len(name), 50)], "-")
}

// plainPod is a pod of one container "app" on the node's default runtime, runc.
func plainPod(t testing.TB, image string, command ...string) *corev1.Pod {
	grace := int64(60)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName(t), Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{container("app", image, command...)},
		},
	}
}

func container(name, image string, command ...string) corev1.Container {
	return corev1.Container{Name: name, Image: image, Command: command, ImagePullPolicy: corev1.PullNever}
}

// richPod is a plainPod under the RuntimeClass, without annotations.
func richPod(t testing.TB, image string, command ...string) *corev1.Pod {
	pod := plainPod(t, image, command...)
	class := "rich"
	pod.Spec.RuntimeClassName = &class
	return pod
}

// systemdPod is a richPod of Debian with systemd.
func systemdPod(t testing.TB, command ...string) *corev1.Pod {
	pod := richPod(t, imageBookworm, command...)
	pod.Annotations[initAnnotation] = "systemd"
	return pod
}

// beside runs a scenario with a plain pod and with a rich one of the same image. The command of both is a script, and each
// time it starts its pid 1 has to be the shell itself in the one and systemd in the other.
func beside(t *testing.T, scenario func(t *testing.T, newPod func(t testing.TB, command ...string) *corev1.Pod)) {
	t.Parallel()
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t testing.TB, command ...string) *corev1.Pod {
			return witnessed(t, plainPod(t, imageBookworm, command...), "sh")
		})
	})
	t.Run("systemd", func(t *testing.T) {
		t.Parallel()
		scenario(t, func(t testing.TB, command ...string) *corev1.Pod {
			return witnessed(t, systemdPod(t, command...), "systemd")
		})
	})
}

// witness is the name of the volume, and of the mount point, where a pod leaves word of its pid 1.
const witness = "witness"

// witnessed has the script of a pod write the name of its pid 1 to a folder of the node first, as nobody can look into a
// container that has ended. When the test ends, the name must be init at each start.
func witnessed(t testing.TB, pod *corev1.Pod, init string) *corev1.Pod {
	t.Helper()
	command := slices.Clone(pod.Spec.Containers[0].Command)
	if len(command) < 3 || command[0] != "sh" || command[1] != "-c" {
		t.Fatalf("not a script: %q", command)
	}
	// No program, and no variable that others see.
	command[2] = "read -r init </proc/1/comm && echo $init >>/" + witness + "/pid1; " + command[2]
	pod.Spec.Containers[0].Command = command
	dir := nodeFolder(t, pod, witness)
	t.Cleanup(func() {
		content, err := os.ReadFile(filepath.Join(dir, "pid1"))
		if err != nil && !t.Failed() {
			t.Errorf("the command has not told its pid 1: %v", err)
		}
		for name := range strings.Lines(string(content)) {
			want(t, "pid 1 of "+pod.Name, strings.TrimSpace(name), init)
		}
	})
	return pod
}

// nodeFolder gives the pod a folder of the node, which everybody can write and which stays when the pod is gone, as a
// volume of this name that is mounted at the top.
func nodeFolder(t testing.TB, pod *corev1.Pod, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	withVolume(pod, name, "/"+name, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}})
	return dir
}

// create makes the pod, which is removed at the end of the test.
func create(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := node.client.CoreV1().Pods(podNamespace).Create(within(t, podLimit), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create pod %s: %v", pod.Name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			describe(t, created.Name)
		}
		remove(t, created.Name)
	})
	return created
}

// remove deletes the pod with hardly any grace and waits until it is gone.
func remove(t testing.TB, name string) {
	t.Helper()
	grace := int64(1)
	// Not the test's context, which has ended.
	ctx, cancel := context.WithTimeout(context.Background(), podLimit)
	defer cancel()
	pods := node.client.CoreV1().Pods(podNamespace)
	err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("delete pod %s: %v", name, err)
	}
	_, err = pods.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("let pod %s go: %v", name, err)
	}
	waitGone(t, name)
}

// kept is a pod that stays in the API after its end, until remove lets it go: of one that is gone nobody can read how it ended.
func kept(pod *corev1.Pod) *corev1.Pod {
	pod.Finalizers = []string{"rich.containerd.io/test"}
	return pod
}

// deleted deletes a pod that is kept, as a user does, and returns it when it has ended.
func deleted(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	kubectl(t, "delete", "pod", name, "--wait=false")
	return waitFor(t, name, "ends", hasEnded)
}

func waitGone(t testing.TB, name string) {
	t.Helper()
	err := poll(podLimit, func() error {
		_, err := node.client.CoreV1().Pods(podNamespace).Get(context.Background(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("is still there"))
	})
	if err != nil {
		t.Errorf("pod %s: %v", name, err)
	}
}

// describe logs what a reader of a failure wants to know.
func describe(t testing.TB, name string) {
	description, _ := node.kubectl("describe", "pod", name).CombinedOutput()
	logs, _ := node.kubectl("logs", "--all-containers", "--prefix", "--tail=30", name).CombinedOutput()
	t.Logf("%s\n%s", description, logs)
}

// waitFor waits until check accepts the pod, and returns it.
func waitFor(t testing.TB, name, what string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, podLimit, "pod "+name+" "+what, func() (err error) {
		pod, err = node.client.CoreV1().Pods(podNamespace).Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return check(pod)
	})
	return pod
}

// ready creates the pod, waits until all its containers are ready, and checks what is pid 1 in them.
func ready(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	create(t, pod)
	found := waitFor(t, pod.Name, "is ready", isReady)
	for _, c := range pod.Spec.Containers {
		init, ofOne := pod.Annotations["rich.containerd.io/"+c.Name+".init"]
		if !ofOne {
			init = pod.Annotations[initAnnotation]
		}
		switch name := pid1(t, pod.Name, c.Name); {
		case pod.Spec.RuntimeClassName == nil || init == "none":
			if name == "systemd" || name == "dumb-init" {
				t.Errorf("%s is pid 1 of %s in %s, which asks for no init", name, c.Name, pod.Name)
			}
		case init == "systemd" || init == "dumb-init":
			want(t, "pid 1 of "+c.Name+" in "+pod.Name, name, init)
		}
	}
	// Under an init the command starts after the container, and the pod may be ready in between.
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == witness {
			eventually(t, podLimit, "the command of "+pod.Name+" starts", func() error {
				_, err := os.Stat(filepath.Join(volume.HostPath.Path, "pid1"))
				return err
			})
		}
	}
	return found
}

func isReady(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return fmt.Errorf("has ended: %v", pod.Status.ContainerStatuses)
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("%s: %v", pod.Status.Phase, pod.Status.Conditions)
}

// finish creates the pod, waits until it has ended, and returns it.
func finish(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	create(t, pod)
	return waitFor(t, pod.Name, "ends", hasEnded)
}

func hasEnded(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return nil
	}
	return fmt.Errorf("%s", pod.Status.Phase)
}

// ending tells how a container of a pod has ended last.
func ending(t testing.TB, pod *corev1.Pod, name string) corev1.ContainerStateTerminated {
	t.Helper()
	for _, status := range append(append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...), pod.Status.EphemeralContainerStatuses...) {
		if status.Name == name && status.State.Terminated != nil {
			return *status.State.Terminated
		}
	}
	t.Fatalf("container %s of pod %s has not ended: %v", name, pod.Name, pod.Status)
	return corev1.ContainerStateTerminated{}
}

// output creates the pod and returns what its container app printed, once it has ended with code 0.
func output(t testing.TB, pod *corev1.Pod) string {
	t.Helper()
	ended := finish(t, pod)
	if end := ending(t, ended, "app"); end.ExitCode != 0 {
		t.Fatalf("ended with %d (%s): %s", end.ExitCode, end.Reason, end.Message)
	}
	return logs(t, pod.Name, "app")
}

func logs(t testing.TB, pod, container string) string {
	t.Helper()
	text, err := node.client.CoreV1().Pods(podNamespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(within(t, podLimit))
	if err != nil {
		t.Fatalf("logs of %s in %s: %v", container, pod, err)
	}
	return string(text)
}

// execution is how a command in a container went.
type execution struct {
	stdout, stderr string
	code           int
}

// execute runs a command in a container of a pod.
func execute(t testing.TB, pod, name string, command ...string) execution {
	t.Helper()
	result, err := tryExecute(within(t, podLimit), pod, &corev1.PodExecOptions{Container: name, Command: command, Stdout: true, Stderr: true}, nil)
	if err != nil {
		t.Fatalf("exec %q in %s of %s: %v", command, name, pod, err)
	}
	return result
}

// printed runs a command that has to succeed, and returns its output without the last line's end.
func printed(t testing.TB, pod, name string, command ...string) string {
	t.Helper()
	result := execute(t, pod, name, command...)
	if result.code != 0 {
		t.Fatalf("exec %q in %s of %s: exit status %d: %s%s", command, name, pod, result.code, result.stdout, result.stderr)
	}
	return strings.TrimSuffix(result.stdout, "\n")
}

func tryExecute(ctx context.Context, pod string, options *corev1.PodExecOptions, stdin io.Reader) (execution, error) {
	var stdout, stderr bytes.Buffer
	streams := remotecommand.StreamOptions{Stdin: stdin, Stdout: &stdout, Tty: options.TTY}
	if options.Stderr {
		streams.Stderr = &stderr
	}
	err := connect(ctx, pod, "exec", options, streams)
	result := execution{stdout: stdout.String(), stderr: stderr.String()}
	var exit utilexec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		result.code = exit.ExitStatus()
		err = nil
	}
	return result, err
}

// connect exchanges streams with a pod, by exec or attach, until these end.
func connect(ctx context.Context, pod, verb string, options runtime.Object, streams remotecommand.StreamOptions) error {
	request := node.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(podNamespace).Name(pod).SubResource(verb).
		VersionedParams(options, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(node.config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, streams)
}

// up waits until the command of a pod that runs untilTerm has started, which under an init is after the start of the container.
func up(t testing.TB, pod string) {
	t.Helper()
	eventually(t, podLimit, "the command of "+pod+" runs", func() error {
		if text := logs(t, pod, "app"); text != "up\n" {
			return fmt.Errorf("the log is %q", text)
		}
		return nil
	})
}

// booted waits until systemd in a container has started everything, and returns its word for the state. Right after the
// start nobody listens yet.
func booted(t testing.TB, pod, name string) string {
	t.Helper()
	var state string
	eventually(t, podLimit, "systemd in "+name+" of "+pod+" has started everything", func() error {
		got := execute(t, pod, name, "systemctl", "is-system-running", "--wait")
		if state = strings.TrimSpace(got.stdout); state == "running" || state == "degraded" {
			return nil
		}
		return fmt.Errorf("%+v", got)
	})
	return state
}

// kubectl runs kubectl as a user would, and returns what it printed.
func kubectl(t testing.TB, arguments ...string) string {
	t.Helper()
	command := node.kubectl(arguments...)
	text, err := runWithin(podLimit, command)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, text)
	}
	return text
}

func runWithin(limit time.Duration, command *exec.Cmd) (string, error) {
	timer := time.AfterFunc(limit, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	text, err := command.CombinedOutput()
	return string(text), err
}

func want(t testing.TB, what, got, expected string) {
	t.Helper()
	if got != expected {
		t.Errorf("%s: %q, want %q", what, got, expected)
	}
}

func wantIn(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q is not in %q", what, part, text)
		}
	}
}

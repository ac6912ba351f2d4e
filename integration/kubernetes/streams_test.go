package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

type podMaker = func(t testing.TB, command ...string) *corev1.Pod

// TestLogs has the log hold the CMD's stdout and stderr, whole and in order, and nothing of the init.
func TestLogs(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'no end'`)
		finish(t, pod)
		text := logs(t, pod.Name, "app")
		// The two are read apart, so that only the order within each is certain.
		var out, err []string
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "err") {
				err = append(err, line)
			} else {
				out = append(out, line)
			}
		}
		want(t, "stdout", strings.Join(out, ","), "out 1,out 2,out 3,no end")
		want(t, "stderr", strings.Join(err, ","), "err 1,err 2,err 3")
		// The kubelet's own file tells which stream a line is of.
		files, globErr := filepath.Glob("/var/log/pods/" + podNamespace + "_" + pod.Name + "_*/app/0.log")
		if globErr != nil || len(files) != 1 {
			t.Fatalf("log files: %v, %v", files, globErr)
		}
		raw, readErr := os.ReadFile(files[0])
		if readErr != nil {
			t.Fatal(readErr)
		}
		wantIn(t, "the log file", string(raw), " stdout F out 1\n", " stderr F err 3\n", " stdout P no end")
	})
}

// TestLogsFollow has kubectl logs -f end with the container.
func TestLogsFollow(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "echo first; while ! test -e /tmp/go; do sleep 0.2; done; echo last")
		ready(t, pod)
		follow := node.kubectl("logs", "--follow", pod.Name)
		var text bytes.Buffer
		follow.Stdout = &text
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		printed(t, pod.Name, "app", "touch", "/tmp/go")
		timer := time.AfterFunc(podLimit, func() { _ = follow.Process.Kill() })
		defer timer.Stop()
		if err := follow.Wait(); err != nil {
			t.Errorf("kubectl logs --follow: %v", err)
		}
		want(t, "log", text.String(), "first\nlast\n")
	})
}

// TestLogsPrevious has the log of the container's earlier run stay when it is started again.
func TestLogsPrevious(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `if test -e /data/again; then echo second; exec sleep 1000; fi; touch /data/again; echo first; exit 3`)
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		withVolume(pod, "data", "/data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
		create(t, pod)
		found := waitFor(t, pod.Name, "is started again", func(pod *corev1.Pod) error {
			if s := pod.Status.ContainerStatuses; len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil {
				return nil
			}
			return fmt.Errorf("%v", pod.Status.ContainerStatuses)
		})
		if code := found.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode; code != 3 {
			t.Errorf("the first run ended with %d, want 3", code)
		}
		want(t, "earlier log", kubectl(t, "logs", "--previous", pod.Name), "first\n")
	})
}

// TestExec covers exit codes, both streams, and stdin with its end.
func TestExec(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		ready(t, pod)
		got := execute(t, pod.Name, "app", "sh", "-c", "echo out; echo err >&2; exit 42")
		if got != (execution{"out\n", "err\n", 42}) {
			t.Errorf("exec: %+v", got)
		}
		got = execute(t, pod.Name, "app", "sh", "-c", "kill -SEGV $$")
		if got.code != 139 {
			t.Errorf("exec that dies of SIGSEGV: %+v", got)
		}
		// More than pipes and fifos hold.
		sent := strings.Repeat("0123456789abcde\n", 20000)
		got, err := tryExecute(within(t, podLimit), pod.Name, &corev1.PodExecOptions{
			Container: "app", Command: []string{"sh", "-c", "cat; echo end >&2"}, Stdin: true, Stdout: true, Stderr: true,
		}, strings.NewReader(sent))
		if err != nil || got.stdout != sent || got.stderr != "end\n" {
			t.Errorf("exec with stdin: %v, %d bytes of %d, stderr %q", err, len(got.stdout), len(sent), got.stderr)
		}
		_, err = tryExecute(within(t, podLimit), pod.Name, &corev1.PodExecOptions{
			Container: "app", Command: []string{"no-such-program"}, Stdout: true, Stderr: true,
		}, nil)
		if err == nil {
			t.Error("exec of a program that does not exist succeeded")
		} else {
			wantIn(t, "error", err.Error(), "no-such-program", "executable file not found in $PATH")
		}
	})
}

// TestExecTerminal has a terminal for an exec, with the size that the client has.
func TestExecTerminal(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		ready(t, pod)
		got, err := tryExecute(within(t, podLimit), pod.Name, &corev1.PodExecOptions{
			Container: "app", Command: []string{"sh", "-c", "tty; test -t 0 && test -t 2 && exit 9"}, Stdin: true, Stdout: true, TTY: true,
		}, openInput(t))
		if err != nil || got.code != 9 || !strings.HasPrefix(got.stdout, "/dev/pts/") {
			t.Errorf("exec with a terminal: %+v, %v", got, err)
		}
	})
}

// openInput is an input that stays open and silent until the test ends.
func openInput(t testing.TB) io.Reader {
	reader, writer := io.Pipe()
	t.Cleanup(func() { writer.Close() })
	return reader
}

// TestAttach has kubectl attach talk to the CMD of a pod with a terminal, and of one with an open stdin.
func TestAttach(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `read line; echo "got $line"; test "$line" = hello`)
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
		ready(t, pod)
		text := attach(t, pod.Name, "hello\n", &corev1.PodAttachOptions{Container: "app", Stdin: true, Stdout: true, Stderr: true})
		wantIn(t, "attached", text, "got hello\n")
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
}

// TestAttachTerminal is the same with a terminal for the CMD.
func TestAttachTerminal(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `test -t 0 && test -t 1 && read line && echo "got $line"`)
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].TTY = true, true
		ready(t, pod)
		text := attach(t, pod.Name, "hello\n", &corev1.PodAttachOptions{Container: "app", Stdin: true, Stdout: true, TTY: true})
		wantIn(t, "attached", text, "got hello\r\n")
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
}

// attach sends input to the CMD and returns what it prints until it ends.
func attach(t testing.TB, pod, input string, options *corev1.PodAttachOptions) string {
	t.Helper()
	request := node.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(podNamespace).Name(pod).SubResource("attach").
		VersionedParams(options, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(node.config, "GET", request.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	streams := remotecommand.StreamOptions{Stdout: &text, Tty: options.TTY, Stdin: io.MultiReader(strings.NewReader(input), openInput(t))}
	if options.Stderr {
		streams.Stderr = io.Discard
	}
	if err := executor.StreamWithContext(within(t, podLimit), streams); err != nil {
		t.Errorf("attach: %v", err)
	}
	return text.String()
}

// TestCopy has kubectl cp, which runs tar by exec, bring a file in and out unchanged.
func TestCopy(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		ready(t, pod)
		dir := t.TempDir()
		content := bytes.Repeat([]byte("\x00\r\n\xffbytes"), 100000)
		if err := os.WriteFile(filepath.Join(dir, "in"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "cp", filepath.Join(dir, "in"), pod.Name+":/var/tmp/there")
		kubectl(t, "cp", pod.Name+":/var/tmp/there", filepath.Join(dir, "out"))
		back, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil || !bytes.Equal(back, content) {
			t.Errorf("%d bytes came back of %d: %v", len(back), len(content), err)
		}
	})
}

// TestPortForward has kubectl port-forward reach a server that is the CMD.
func TestPortForward(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "mkdir /www; echo served >/www/index.html; exec busybox httpd -f -p 127.0.0.1:8080 -h /www")
		pod.Spec.Containers[0].StartupProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"}}})
		ready(t, pod)
		forward := node.kubectl("port-forward", pod.Name, ":8080")
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		forward.Stdout, forward.Stderr = writer, writer
		if err := forward.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		defer func() { _ = forward.Wait() }()
		defer func() { _ = forward.Process.Kill() }()
		buffer := make([]byte, 1000)
		count, err := reader.Read(buffer)
		address := regexp.MustCompile(`127\.0\.0\.1:\d+`).Find(buffer[:count])
		if err != nil || address == nil {
			t.Fatalf("kubectl port-forward printed %q: %v", buffer[:count], err)
		}
		body, err := fetch("http://" + string(address))
		if err != nil || body != "served\n" {
			t.Errorf("got %q, %v", body, err)
		}
	})
}

func fetch(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), podLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(response.Status))
	}
	return string(body), err
}

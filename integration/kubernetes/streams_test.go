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
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

type podMaker = func(t testing.TB, command ...string) *corev1.Pod

// TestLogs has the log hold the command's stdout and stderr, whole and in order, and nothing of the init.
func TestLogs(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'no end'`)
		finish(t, pod)
		// The two are read apart, so that only the order within each is certain, and what has no end can come anywhere.
		text, last, _ := strings.Cut(logs(t, pod.Name, "app"), "no end")
		text += last
		var out, err []string
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "err") {
				err = append(err, line)
			} else {
				out = append(out, line)
			}
		}
		want(t, "stdout", strings.Join(out, ","), "out 1,out 2,out 3")
		want(t, "stderr", strings.Join(err, ","), "err 1,err 2,err 3")
		want(t, "stdout in the log file", strings.Join(logged(t, pod, "stdout"), ","), "out 1,out 2,out 3,no end")
		want(t, "stderr in the log file", strings.Join(logged(t, pod, "stderr"), ","), "err 1,err 2,err 3")
		wantIn(t, "the log file", logFile(t, pod), " stdout F out 1\n", " stderr F err 3\n", " stdout P no end")
	})
}

// logFile is what the node has of the first run of a pod's container app.
func logFile(t testing.TB, pod *corev1.Pod) string {
	t.Helper()
	files, err := filepath.Glob("/var/log/pods/" + podNamespace + "_" + pod.Name + "_*/app/0.log")
	if err != nil || len(files) != 1 {
		t.Fatalf("log files: %v, %v", files, err)
	}
	return readFile(t, files[0])
}

// logged are the lines that the app printed on one stream: the node's own file tells which stream a line is of.
func logged(t testing.TB, pod *corev1.Pod, stream string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(logFile(t, pod)) {
		// Time, stream, whether the line has an end, text.
		if fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4); len(fields) == 4 && fields[1] == stream {
			lines = append(lines, fields[3])
		}
	}
	return lines
}

// TestLogsFollow has kubectl logs -f end with the container.
func TestLogsFollow(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "echo first; while ! test -e /tmp/go; do sleep 0.2; done; echo last")
		ready(t, pod)
		follow := node.kubectl("logs", "--follow", pod.Name)
		text := &transcript{}
		follow.Stdout = text
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(podLimit, func() { _ = follow.Process.Kill() })
		defer timer.Stop()
		// What is printed from now on can only come because kubectl follows.
		eventually(t, podLimit, "the first line comes", func() error {
			if got := text.String(); got != "first\n" {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
		printed(t, pod.Name, "app", "touch", "/tmp/go")
		if err := follow.Wait(); err != nil {
			t.Errorf("kubectl logs --follow: %v", err)
		}
		want(t, "log", text.String(), "first\nlast\n")
	})
}

// transcript is output that can be read while it is written.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
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

// onTerminal is a script that answers what is typed on its terminal, with the terminal's size, and ends with 9.
const onTerminal = `test -t 0 && test -t 1 && test -t 2 || exit 1
stty -echo
tty | grep ^/dev/pts/ || exit 2
while read -r line; do
	echo "$line: $(stty size)."
	test "$line" != end || exit 9
done`

// TestExecTerminal has a terminal for an exec, with the size that the client has, also when it changes.
func TestExecTerminal(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, untilTerm...)
		ready(t, pod)
		useTerminal(t, pod.Name, "exec", &corev1.PodExecOptions{
			Container: "app", Command: []string{"sh", "-c", onTerminal}, Stdin: true, Stdout: true, TTY: true,
		}, 9)
	})
}

// useTerminal talks to onTerminal as somebody does who resizes a window. The script ends with code, which an attached
// client does not hear of.
func useTerminal(t testing.TB, pod, verb string, options runtime.Object, code int) {
	t.Helper()
	input, typed := io.Pipe()
	defer typed.Close()
	sizes := make(terminalSizes, 1)
	screen := &transcript{}
	done := make(chan error, 1)
	ctx := within(t, podLimit)
	go func() {
		done <- connect(ctx, pod, verb, options, remotecommand.StreamOptions{Stdin: input, Stdout: screen, Tty: true, TerminalSizeQueue: sizes})
	}()
	write := func(line string) {
		t.Helper()
		written := make(chan error, 1)
		go func() {
			_, err := io.WriteString(typed, line+"\n")
			written <- err
		}()
		select {
		case err := <-written:
			if err != nil {
				t.Fatalf("type %q: %v", line, err)
			}
		case err := <-done:
			t.Fatalf("%s ended (%v) before %q was typed; the screen: %q", verb, err, line, screen)
		}
	}
	for i, size := range []remotecommand.TerminalSize{{Width: 101, Height: 31}, {Width: 77, Height: 22}} {
		sizes <- size
		asked := 0
		// A size comes on a way of its own, before or after what is typed.
		eventually(t, podLimit, "the terminal has the size of the client", func() error {
			asked++
			line := fmt.Sprintf("question %d.%d", i, asked)
			write(line)
			expected := fmt.Sprintf("%s: %d %d.\r\n", line, size.Height, size.Width)
			return poll(5*time.Second, func() error {
				if got := screen.String(); !strings.Contains(got, expected) {
					return fmt.Errorf("no %q on the screen: %q", expected, got)
				}
				return nil
			})
		})
	}
	write("end")
	err := <-done
	var exit utilexec.ExitError
	if code != 0 && (!errors.As(err, &exit) || exit.ExitStatus() != code) || code == 0 && err != nil {
		t.Errorf("%s ended: %v, want code %d", verb, err, code)
	}
	wantIn(t, "screen", screen.String(), "end: 22 77.\r\n")
}

// terminalSizes are the sizes that a client's terminal has one after the other.
type terminalSizes chan remotecommand.TerminalSize

func (s terminalSizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

// openInput is an input that stays open and silent until the test ends.
func openInput(t testing.TB) io.Reader {
	reader, writer := io.Pipe()
	t.Cleanup(func() { writer.Close() })
	return reader
}

// TestAttach has kubectl attach talk to the command of a pod with an open stdin, and get its two streams apart.
func TestAttach(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", `read line; echo "got $line"; echo "complained of $line" >&2; test "$line" = hello`)
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
		ready(t, pod)
		stdout, stderr := attach(t, pod.Name, io.MultiReader(strings.NewReader("hello\n"), openInput(t)))
		want(t, "stdout", stdout, "got hello\n")
		want(t, "stderr", stderr, "complained of hello\n")
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
}

// TestAttachEnd has the command's stdin end with that of the client, after all that was sent.
func TestAttachEnd(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", "cat; echo end >&2; exit 6")
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
		ready(t, pod)
		// More than pipes and fifos hold.
		sent := strings.Repeat("0123456789abcde\n", 20000)
		stdout, stderr := attach(t, pod.Name, strings.NewReader(sent))
		if stdout != sent || stderr != "end\n" {
			t.Errorf("%d bytes came back of %d, and on stderr %q", len(stdout), len(sent), stderr)
		}
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 6 {
			t.Errorf("ended with %d, want 6", code)
		}
	})
}

// TestAttachTerminal is the same as TestExecTerminal with the terminal of the command.
func TestAttachTerminal(t *testing.T) {
	beside(t, func(t *testing.T, newPod podMaker) {
		pod := newPod(t, "sh", "-c", onTerminal)
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].TTY = true, true
		ready(t, pod)
		// Who attaches sees what is printed from then on, and the name of the terminal comes first.
		eventually(t, podLimit, "the command waits for input", func() error {
			if text := logs(t, pod.Name, "app"); !strings.Contains(text, "/dev/pts/") {
				return fmt.Errorf("the log is %q", text)
			}
			return nil
		})
		useTerminal(t, pod.Name, "attach", &corev1.PodAttachOptions{Container: "app", Stdin: true, Stdout: true, TTY: true}, 0)
		if code := ending(t, waitFor(t, pod.Name, "ends", hasEnded), "app").ExitCode; code != 9 {
			t.Errorf("ended with %d, want 9", code)
		}
	})
}

// attach sends input to the command and returns what it prints on each stream until it ends.
func attach(t testing.TB, pod string, input io.Reader) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	options := &corev1.PodAttachOptions{Container: "app", Stdin: true, Stdout: true, Stderr: true}
	streams := remotecommand.StreamOptions{Stdin: input, Stdout: &out, Stderr: &err}
	if err := connect(within(t, podLimit), pod, "attach", options, streams); err != nil {
		t.Errorf("attach: %v", err)
	}
	return out.String(), err.String()
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

// TestPortForward has kubectl port-forward reach a server that is the command.
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

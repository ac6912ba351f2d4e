package shim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// starterEnv makes the test program one that opens the socket it names, for
// the container it names, says what came of it and serves until its standard
// input ends.
const starterEnv = "RICH_TEST_STARTER"

func TestMain(m *testing.M) {
	if path, id, ok := strings.Cut(os.Getenv(starterEnv), " "); ok {
		l, err := listen(path, id)
		switch {
		case errors.Is(err, errdefs.ErrAlreadyExists):
			fmt.Print("exists")
		case err != nil:
			fmt.Print(err)
		default:
			fmt.Print("serves")
			defer l.Close()
		}
		os.Stdout.Close()
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

func listenAt(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listenAt(t, path)
	first, err := socketAt("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	// Kept elsewhere, or the next may get the same inode.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := first.remove(); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	listenAt(t, path)
	if err := first.remove(); err != nil {
		t.Error(err)
	}
	second, err := socketAt("unix://" + path)
	if err != nil {
		t.Fatalf("the socket of the next shim: %v", err)
	}
	if err := second.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the shim's own socket: %v", err)
	}
}

// entries are the names in the directory of a socket.
func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(list))
	for i, entry := range list {
		names[i] = entry.Name()
	}
	return names
}

// leaveDead leaves what a shim that was killed leaves.
func leaveDead(t *testing.T, path string) {
	t.Helper()
	l, err := listen(path, "dead")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if alive, err := serving(path); alive || err != nil {
		t.Fatalf("a socket without a listener: serving is %v, %v", alive, err)
	}
}

// Wherever the first of two starts is held up, there is one shim.
func TestListenHeldUp(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for _, at := range []string{"bound", "listening"} {
			t.Run(fmt.Sprintf("%s dead=%v", at, dead), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				if dead {
					leaveDead(t, path)
				}
				first := newName(path, "first")
				if at == "bound" {
					fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(fd)
					if err := unix.Bind(fd, &unix.SockaddrUnix{Name: first}); err != nil {
						t.Fatal(err)
					}
					defer func() {
						if err := unix.Listen(fd, 1); err != nil {
							t.Error(err)
						}
						if err := takeName(first, path); !errdefs.IsAlreadyExists(err) {
							t.Errorf("the first start: %v, want that another one serves", err)
						}
					}()
				} else {
					l, err := listenUnnamed(first)
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					defer func() {
						if err := takeName(first, path); !errdefs.IsAlreadyExists(err) {
							t.Errorf("the first start: %v, want that another one serves", err)
						}
					}()
				}
				second, err := listen(path, "second")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { second.Close() })
				if _, err := listen(path, "third"); !errdefs.IsAlreadyExists(err) {
					t.Errorf("the third start: %v", err)
				}
			})
		}
	}
}

// A shim that does not answer is one all the same, and its socket is nobody's
// to remove.
func TestListenBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // more than its queue takes
		if _, err := listen(path, "other"); !errdefs.IsAlreadyExists(err) {
			t.Errorf("got %v", err)
		}
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		_ = unix.Connect(c, &unix.SockaddrUnix{Name: path})
	}
	if err := removeDeadSocket(path); err != nil {
		t.Error(err)
	}
	if names := entries(t, path); !slices.Equal(names, []string{"s"}) {
		t.Errorf("the files are %v", names)
	}
}

// While somebody removes sockets, a dead one is not taken for another's.
func TestListenLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	leaveDead(t, path)
	unlock, err := lockSockets(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		l   *net.UnixListener
		err error
	}
	done := make(chan outcome)
	go func() {
		l, err := listen(path, "waiting")
		done <- outcome{l, err}
	}()
	select {
	case o := <-done:
		t.Fatalf("it did not wait: %v", o.err)
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	o.l.Close()
}

// Many starts at once, which are stopped and go on at any time, also where a
// shim was killed before: one of them serves, all others find it.
func TestListenTogether(t *testing.T) {
	const rounds, starts = 12, 6
	for round := range rounds {
		path := filepath.Join(t.TempDir(), "s")
		if round%2 == 0 {
			leaveDead(t, path)
		}
		var children []*exec.Cmd
		var said []io.Reader
		for i := range starts {
			cmd := exec.Command("/proc/self/exe")
			// The race detector would wait a second at the end of each.
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", fmt.Sprintf("%s=%s container-%d", starterEnv, path, i))
			cmd.Stderr = os.Stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { // after the last one has said what came of it
				stdin.Close()
				_ = cmd.Wait()
			}()
			children, said = append(children, cmd), append(said, stdout)
		}
		for range 60 {
			child := children[rand.IntN(starts)].Process
			_ = child.Signal(unix.SIGSTOP)
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			_ = child.Signal(unix.SIGCONT)
		}
		var all []string
		for _, r := range said {
			words, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(words))
		}
		slices.Sort(all)
		if want := append(slices.Repeat([]string{"exists"}, starts-1), "serves"); !slices.Equal(all, want) {
			t.Errorf("round %d: %q", round, all)
		}
		if names := entries(t, path); !slices.Equal(names, []string{"s"}) {
			t.Errorf("round %d: the files are %v", round, names)
		}
	}
}

// The library takes where containerd's events go from the environment, and with
// an address of containerd it would remove a socket by itself.
func TestBecome(t *testing.T) {
	const descriptor = 900
	t.Setenv("GOMAXPROCS", "")
	for told, want := range map[string]string{"/run/new.ttrpc": "/run/new.ttrpc", "": "/run/env.ttrpc"} {
		t.Setenv("TTRPC_ADDRESS", "/run/env.ttrpc")
		m := &manager{listener: listenAt(t, filepath.Join(t.TempDir(), "s"))}
		args, err := m.become(&bootapi.BootstrapParams{
			InstanceID: "c1", Namespace: "ns", ContainerdGrpcAddress: "/run/c.sock", ContainerdTtrpcAddress: told,
		}, "shim", descriptor)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(descriptor)
		if got := os.Getenv("TTRPC_ADDRESS"); got != want {
			t.Errorf("events go to %q, want %q", got, want)
		}
		if line := strings.Join(args, " "); slices.Contains(args, "-address") || !strings.HasPrefix(line, "shim -namespace ns -id c1") {
			t.Errorf("the command line is %s", line)
		}
	}
}

package shim

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"golang.org/x/sys/unix"
)

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

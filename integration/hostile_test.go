package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/launch"
)

// What root in a container, or whoever made its image, can try against the host.

// dialShim connects to a container's socket as its root could.
func (r *task) dialShim() (*net.UnixConn, error) {
	// The address of a socket is too short for its path.
	dir, err := os.Open(r.runDir())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/shim.sock", dir.Fd())})
}

// runDir is what the container has at /run/rich, as a file system of its own. A shim may have been given a mount namespace by
// the test, and mounts it there.
func (r *task) runDir() string {
	r.t.Helper()
	dir := r.bundle("rich", "run")
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		return fmt.Sprintf("/proc/%d/root%s", r.shimPID(), dir)
	}
	return dir
}

// answered receives what the shim says after its own Hello.
func answered(conn *launch.Conn) (launch.Message, []*os.File, error) {
	m, files, err := conn.Receive()
	if m == (launch.Hello{Version: launch.Version, Role: launch.RoleShim}) {
		return conn.Receive()
	}
	return m, files, errors.Join(err, fmt.Errorf("got %+v, want the shim's Hello", m))
}

// frame is what is on the wire, with a length that need not be true.
func frame(length uint32, kind byte, body []byte) []byte {
	return append(append(binary.LittleEndian.AppendUint32(nil, length), kind), body...)
}

// shimStatus returns a number of the shim's /proc/PID/status, in its unit.
func shimStatus(t *testing.T, pid int, field string) int {
	t.Helper()
	for _, line := range readLines(t, fmt.Sprintf("/proc/%d/status", pid)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

func countFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestHostileSocket(t *testing.T) {
	t.Parallel()
	run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", "trap 'echo bye; exit 5' TERM; "+ready+idle))
	run.WaitOutput("ready", runLimit)
	run.booted()
	shim := run.shimPID()
	files, memory := countFiles(t, shim), shimStatus(t, shim, "VmRSS")

	hello := func(role string) func(c *net.UnixConn) error {
		return func(c *net.UnixConn) error {
			return launch.NewConn(c, launch.MaxFromShim).Send(launch.Hello{Version: launch.Version, Role: role})
		}
	}
	write := func(b []byte) func(c *net.UnixConn) error {
		return func(c *net.UnixConn) error { _, err := c.Write(b); return err }
	}
	garbage := make([]byte, 1<<20)
	for i := range garbage {
		garbage[i] = byte(i * 7)
	}
	attacks := []func(c *net.UnixConn) error{
		func(*net.UnixConn) error { return nil },
		write(garbage),
		write(frame(1<<32-1, 1, garbage)),
		write(frame(1<<31, 9, nil)),
		write(frame(launch.MaxFromContainer, 1, make([]byte, launch.MaxFromContainer))),
		write(frame(0, 0, nil)),
		write(frame(4, 9, []byte{1, 0, 0, 0})),
		hello("event"), hello("nothing"), hello("app"),
		func(c *net.UnixConn) error { return errors.Join(hello("event")(c), write(garbage)(c)) },
		func(c *net.UnixConn) error { return errors.Join(hello("app")(c), write(garbage)(c)) },
		func(c *net.UnixConn) error {
			return launch.NewConn(c, launch.MaxFromShim).Send(launch.Exited{Status: 0})
		},
		func(c *net.UnixConn) error {
			return errors.Join(hello("app")(c), launch.NewConn(c, launch.MaxFromShim).Send(launch.Exited{Status: 0, Requested: true}))
		},
		func(c *net.UnixConn) error {
			null, err := os.Open("/dev/null")
			if err != nil {
				return err
			}
			defer null.Close()
			many := make([]int, 200)
			for i := range many {
				many[i] = int(null.Fd())
			}
			_, _, err = c.WriteMsgUnix(frame(0, 7, nil), unix.UnixRights(many...), nil)
			return err
		},
	}
	var attackers sync.WaitGroup
	for n := range 8 {
		attackers.Go(func() {
			for i := range 60 {
				c, err := run.dialShim()
				if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ECONNREFUSED) {
					continue // a full queue holds up the container alone
				}
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				// The shim may hang up at any point.
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				_ = attacks[(n+i)%len(attacks)](c)
				if i%4 == 0 {
					_ = c.CloseWrite()
					_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
				}
				c.Close()
			}
		})
	}
	attackers.Wait()
	if peak := shimStatus(t, shim, "VmHWM"); peak > memory+32<<10 {
		t.Errorf("the shim used %d KiB, before it was %d KiB", peak, memory)
	}
	eventually(t, runLimit, "the shim's descriptors", func() error {
		if now := countFiles(t, shim); now > files {
			return fmt.Errorf("%d are open, before there were %d", now, files)
		}
		return nil
	})

	// With every connection taken and silent the command is still there, and stops as ever.
	var held []*net.UnixConn
	for range 64 {
		if c, err := run.dialShim(); err == nil {
			held = append(held, c)
		}
	}
	if len(held) < 8 {
		t.Errorf("only %d connections", len(held))
	}
	run.running()
	if got := run.Exec("echo", "there"); got.Stdout != "there\n" {
		t.Errorf("exec: %+v", got)
	}
	run.Kill(syscall.SIGTERM)
	run.outcome(log, 5)
	for _, c := range held {
		c.Close()
	}
	if got := run.Stdout.String(); got != "ready\nbye\n" {
		t.Errorf("stdout is %q", got)
	}
}

// A lie about the end of the command, told by another connection, is no news.
func TestHostileSecondApp(t *testing.T) {
	t.Parallel()
	run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))
	run.WaitOutput("ready", runLimit)
	socket, err := run.dialShim()
	if err != nil {
		t.Fatal(err)
	}
	conn := launch.NewConn(socket, launch.MaxFromShim)
	defer conn.Close()
	if err := conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleService}); err != nil {
		t.Fatal(err)
	}
	if m, files, err := answered(conn); err != nil || len(files) > 0 {
		t.Errorf("got %+v, %d files, %v", m, len(files), err)
	} else if refused, ok := m.(launch.Refuse); !ok || refused.Reason == "" {
		t.Errorf("got %+v, want to be refused", m)
	}
	_ = conn.Send(launch.Exited{Status: 0})
	run.running()
	run.Kill(syscall.SIGTERM)
	run.outcome(log, 5)
}

// The programs from the host are the host's, whatever a container may mount.
func TestHostileRemount(t *testing.T) {
	t.Parallel()
	programs := []string{buildPath("bin/rich-launch"), buildPath("bin/dumb-init"), buildPath("bin/containerd-shim-rich-v2")}
	state := func() []string {
		var lines []string
		for _, file := range programs {
			line, err := describeFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, file+" "+line)
		}
		return lines
	}
	before := state()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `
for file in /run/rich/launch /run/rich/dumb-init; do
	for options in remount,rw remount,rw,bind remount,bind,rw,suid,dev,exec; do
		mount -o $options $file
		cp /bin/true $file
		dd if=/bin/true of=$file conv=notrunc
		chmod 777 $file
		rm -f $file
		mv $file /tmp/gone
		ln -f /bin/true $file
	done
	grep " $file " /proc/self/mountinfo
done
mount -o remount,rw /etc/machine-id; mount -o remount,rw,bind /etc/machine-id; echo 0 > /etc/machine-id
mount -o remount,rw,bind /run/rich
umount /run/rich/launch; umount -l /run/rich/dumb-init
for name in shim.sock machine-id launch dumb-init units; do
	rm -rf /run/rich/$name
	ln -s $VICTIM /run/rich/$name
done
umount -l /run/rich
echo done >&3`
	forEach(t, mostInits, func(t *testing.T, v variant) {
		run, log := watch(t, v.image, v.with(withSpec(oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})), withEnv("VICTIM="+victim),
			withArgs("sh", "-c", "exec 3>&1 >/dev/null 2>&1; trap 'exit 5' TERM; "+script+"\n"+idle))...)
		run.WaitOutput("done", runLimit)
		sameLines(t, "the host's programs", state(), before)
		run.Kill(syscall.SIGTERM)
		run.outcome(log, 5)
		sameLines(t, "the host's programs", state(), before)
		if content, err := os.ReadFile(victim); err != nil || string(content) != "host" {
			t.Errorf("a file of the host now holds %q, %v", content, err)
		}
		if got := runTask(t, v.image, runLimit, v.with(withArgs("echo", "next"))...); got != (result{Stdout: "next\n"}) {
			t.Errorf("the next container: %+v", got)
		}
	})
}

// Links of an image lead to its own files.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"/run", "/var/run", "/run/rich", "/etc/machine-id", "/etc", "/dev", "/sys", "/sys/fs/cgroup", "/proc", "/run/lock", "/dev/rich", "/usr/lib/systemd/systemd",
	} {
		for _, climb := range []string{"/", "../../../../../../../../../../../../../../"} {
			for _, v := range []variant{{"dumb-init", imageBusybox, "dumb-init"}, systemdBookworm} {
				if v.init == "dumb-init" && !strings.HasPrefix(name, "/run") && !strings.HasPrefix(name, "/dev") {
					continue
				}
				kind := map[bool]string{true: "absolute", false: "climbing"}[climb == "/"]
				t.Run(strings.NewReplacer("/", "-").Replace(strings.Trim(name, "/"))+" "+kind+" "+v.name, func(t *testing.T) {
					t.Parallel()
					victim := t.TempDir()
					for _, sub := range []string{"fs/cgroup", "rich", "machine-id"} {
						if err := os.MkdirAll(filepath.Join(victim, sub), 0o755); err != nil {
							t.Fatal(err)
						}
					}
					before := listFolder(t, victim)
					target := climb + strings.TrimPrefix(victim, "/")
					run, err := tryTask(t, v.image, v.with(withoutRunMount(), withArgs("true"), withRootfs(func(root *os.Root) error {
						name := strings.TrimPrefix(name, "/")
						return errors.Join(root.RemoveAll(name), root.MkdirAll(filepath.Dir(name), 0o755), root.Symlink(target, name))
					}))...)
					if err == nil {
						run.Start()
						run.Wait(runLimit)
						run.Delete()
					} else {
						t.Log(err)
					}
					sameLines(t, "the host's folder", listFolder(t, victim), before)
				})
			}
		}
	}
}

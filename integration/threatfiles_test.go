package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a user of the host can have written, or what would block, is not read as the host's file or as runtime options, and
// Create says what to do.
func TestT12HostFile(t *testing.T) {
	const file = "/etc/containerd/rich.toml"
	for _, c := range []struct {
		name  string
		make  func(h *hostFiles) error
		words []string
	}{
		{"of another user", func(h *hostFiles) error { return os.Chown(h.Path(file), 1000, 0) }, []string{"user 1000", "chown it to root"}},
		{"writable", func(h *hostFiles) error { return os.Chmod(h.Path(file), 0o666) }, []string{"0666", "chmod go-w"}},
		{"fifo", func(h *hostFiles) error {
			return errors.Join(os.Remove(h.Path(file)), unix.Mkfifo(h.Path(file), 0o600))
		}, []string{"not a regular file"}},
		{"in a folder of another user", func(h *hostFiles) error { return os.Chown(filepath.Dir(h.Path(file)), 1000, 0) }, []string{"its directory", "user 1000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHostFiles(t, map[string]string{file: "init = \"dumb-init\"\n"})
			if err := c.make(h); err != nil {
				t.Fatal(err)
			}
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBusybox, withHost(h), withArgs("true"))
			expectError(t, err, append(c.words, file))
			compare()
		})
	}
	t.Run("runtime options", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "options.toml")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		compare := snapshotHost(t)
		_, err := tryTask(t, imageBusybox, withRuntimeOptions(&runtimeoptions.Options{ConfigPath: path}), withArgs("true"))
		expectError(t, err, []string{"ConfigPath", path, "not a regular file"})
		compare()
	})
}

// A mount of the user's is there, wherever it is, or Create says why it cannot be.
func TestT17Mounts(t *testing.T) {
	t.Parallel()
	volume := func(t *testing.T, at string) taskOption {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return withBind(dir, at, "rbind", "rw")
	}
	// What the volume holds, and what pid 1 is, which has nothing of its own in there.
	show := func(at string) taskOption {
		return withArgs("sh", "-c", "cat "+at+"/mine; ls -A "+at+"; cat /proc/1/comm")
	}
	for _, c := range []struct {
		name, image, init, at, want string
	}{
		{"systemd at our directory", imageBookworm, "systemd", "/run/rich", "systemd"},
		{"systemd in our directory", imageBookworm, "systemd", "/run/rich/units", "systemd"},
		{"runit at our directory", imageRunit, "sbin-init", "/run/rich", "runit"},
		{"dumb-init at our directory", imageBookworm, "dumb-init", "/run/rich", "dumb-init"},
		{"dumb-init at its launcher", imageBusybox, "dumb-init", "/run/rich/launch", "dumb-init"},
		{"auto at the cgroups", imageBookworm, "auto", "/sys/fs/cgroup", "dumb-init"},
		{"auto in a service of ours", imageRunit, "auto", "/etc/runit/runsvdir/default/rich-app", "dumb-init"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := runTask(t, c.image, initLimit, withInit(c.init), volume(t, c.at), show(c.at))
			if want := "mine\nmine\n" + c.want + "\n"; got.Stdout != want || got.Code != 0 {
				t.Errorf("got %+v, want %q", got, want)
			}
		})
	}
	t.Run("auto without any place", func(t *testing.T) {
		t.Parallel()
		got := runTask(t, imageBookworm, runLimit, volume(t, "/run/rich"), volume(t, "/dev/rich"), show("/dev/rich"))
		if want := "mine\nmine\nsh\n"; got.Stdout != want {
			t.Errorf("got %+v, want %q", got, want)
		}
	})
	for _, c := range []struct {
		name, init string
		at         []string
		words      []string
	}{
		{"cgroups", "systemd", []string{"/sys/fs/cgroup"}, []string{"].destination", `"/sys/fs/cgroup"`, `"systemd"`, "mount it elsewhere", `"dumb-init"`}},
		{"no place", "dumb-init", []string{"/run/rich", "/dev/rich/x"}, []string{"].destination", `"/dev/rich/x"`, "mount it elsewhere", `"none"`}},
	} {
		t.Run("error "+c.name, func(t *testing.T) {
			t.Parallel()
			opts := []taskOption{withInit(c.init), withArgs("true")}
			for _, at := range c.at {
				opts = append(opts, volume(t, at))
			}
			_, err := tryTask(t, imageBookworm, opts...)
			expectError(t, err, c.words)
		})
	}
	// As docker's users had to for systemd; its own cgroups take the place of the host's.
	t.Run("the host's cgroups", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, withInit("systemd"), withBind("/sys/fs/cgroup", "/sys/fs/cgroup", "rbind", "ro"), withArgs("sh", "-c", "echo up; "+idle))
		run.WaitOutput("up", initLimit)
		run.waitShimLog("/sys/fs/cgroup", "replaced")
		run.stop()
	})
}

// netInits are the inits that start services, with a way to give the image one that is enabled.
var netInits = []struct {
	name, image string
	service     func(name string) taskOption
}{
	{"systemd 252", imageBookworm, func(name string) taskOption { return withUnit(name+".service", oneshot+mark(name)+"'\n") }},
	{"systemd sid", imageSid, func(name string) taskOption { return withUnit(name+".service", oneshot+mark(name)+"'\n") }},
	{"sysvinit", imageSysvinit, func(name string) taskOption {
		return func(s *taskSettings) {
			// Or Debian's rc runs only what insserv has put in an order.
			withFile("/etc/init.d/.legacy-bootordering", "", 0o644)(s)
			enabled("/etc/init.d/"+name, "#!/bin/sh\n"+mark(name)+"\n", "/etc/rc2.d/S01"+name)(s)
		}
	}},
	{"busybox with OpenRC", imageInitAlpine, openrcMark},
	{"openrc-init", imageInitOpenRC, openrcMark},
	{"runit", imageRunit, func(name string) taskOption {
		return func(s *taskSettings) {
			withFile("/etc/sv/"+name+"/run", "#!/bin/sh\n"+mark(name)+"\nexec sleep 100000\n", 0o755)(s)
			withLink("/etc/runit/runsvdir/default/"+name, "/etc/sv/"+name)(s)
		}
	}},
	{"runit with init scripts", imageRunit, func(name string) taskOption {
		return enabled("/etc/init.d/"+name, "#!/bin/sh\n"+mark(name)+"\n", "/etc/rc2.d/S01"+name)
	}},
}

const oneshot = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '"

func mark(name string) string { return "echo " + name + " >>/notes/log" }

// enabled is a script, and what has it started.
func enabled(file, content, link string) taskOption {
	return func(s *taskSettings) {
		withFile(file, content, 0o755)(s)
		withLink(link, file)(s)
	}
}

func openrcMark(name string) taskOption {
	return enabled("/etc/init.d/"+name, "#!/sbin/openrc-run\nstart() {\n"+mark(name)+"\n}\n", "/etc/runlevels/default/"+name)
}

// No service of an image sets up the host's network. The services are harmless ones by these names.
func TestT14HostNetwork(t *testing.T) {
	t.Parallel()
	names := []string{"systemd-networkd", "NetworkManager", "networking", "dhcpcd", "connman", "wicked", "nftables", "iptables", "netfilter-persistent", "ufw", "firewalld", "wpa_supplicant", "keepalived"}
	const own = "mine"
	pod := withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", os.Getpid())}))
	for _, v := range netInits {
		for _, c := range []struct {
			name string
			opts []taskOption
			ran  []string
		}{
			{"host", []taskOption{withHostNetwork()}, []string{own}},
			{"pod", []taskOption{pod}, []string{own}},
			{"asked for", []taskOption{withHostNetwork(), withRich("services", "nftables")}, []string{own, "nftables"}},
			{"its own", nil, append([]string{own}, names...)},
		} {
			t.Run(v.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				n := newNotes(t)
				opts := append(c.opts, withInit("sbin-init"), n.mount(), v.service(own),
					withArgs("sh", "-c", "until grep -q "+own+" /notes/log; do sleep 0.1; done; sleep 1; echo ready; "+idle))
				for _, name := range names {
					opts = append(opts, v.service(name))
				}
				want := slices.Sorted(slices.Values(c.ran))
				run := startTask(t, v.image, opts...)
				run.WaitOutput("ready", initLimit)
				err := poll(initLimit, func() error {
					if got := slices.Sorted(slices.Values(strings.Fields(n.read("log")))); !slices.Equal(got, want) {
						return fmt.Errorf("%q have run, want %q", got, want)
					}
					return nil
				})
				if err != nil {
					run.fatal("%v", err)
				}
				run.stop()
			})
		}
	}
}

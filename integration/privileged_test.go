package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// sysctls reads all settings of the host.
func sysctls(t *testing.T) map[string]string {
	t.Helper()
	values, err := readSysctls()
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// terminals are the host's terminals that a process of the container has open.
func (r *task) terminals() []string {
	r.t.Helper()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	pids, err := r.Task.Pids(ctx)
	if err != nil {
		r.fatal("pids: %v", err)
	}
	var open []string
	for _, p := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid))
		for _, file := range files {
			if name, err := os.Readlink(file); err == nil && regexp.MustCompile(`^/dev/(tty[0-9S]|vcs|console$)`).MatchString(name) {
				// pid 1's own console has this name, too, in the container.
				if name != "/dev/console" {
					open = append(open, fmt.Sprintf("%d: %s", p.Pid, name))
				}
			}
		}
	}
	return open
}

// newUTS makes a UTS namespace that stands for the host's, and returns its path and what tells its hostname.
func newUTS(t *testing.T, hostname string) (path string, get func() string) {
	t.Helper()
	path = newNamespace(t, "uts", "hostname "+hostname)
	return path, func() string {
		out, err := exec.Command("nsenter", "--uts="+path, "hostname").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
}

// newNamespace makes a namespace, prepares it by a script, and returns its path.
func newNamespace(t *testing.T, kind, script string) string {
	t.Helper()
	// Ended by the end of its input, also when this process is killed.
	holder := exec.Command("unshare", "--"+kind, "sh", "-c", script+"; echo; exec cat")
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = holder.Wait()
	})
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, kind)
}

// A privileged container leaves the host's settings, hostname and terminals alone.
func TestB18Privileged(t *testing.T) {
	// As in a pod with hostNetwork, where the engine names the sandbox's namespace, and with a volume at /run.
	pod := []taskOption{
		withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", os.Getpid())})),
		withBind(t.TempDir(), "/run", "rbind", "rw"),
	}
	for _, c := range []struct {
		name, image string
		opts        []taskOption
	}{
		{"systemd 252", imageBookworm, nil},
		{"systemd sid", imageSid, nil},
		{"systemd 252 in a pod", imageBookworm, pod},
		{"sysvinit", imageSysvinit, nil},
		{"busybox with OpenRC", imageInitAlpine, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			private.image(t, c.image)
			before := sysctls(t)
			uts, hostname := newUTS(t, "the-host")
			run := startTask(t, c.image, append(c.opts, withInit("sbin-init"),
				withSpec(oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices,
					oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.UTSNamespace, Path: uts})),
				withFile("/etc/hostname", "the-image\n", 0o644),
				withFile("/etc/sysctl.d/image.conf", "fs.file-max = 1234567\nvm.swappiness = 7\n", 0o644),
				withFile("/etc/modules-load.d/image.conf", "dummy\n", 0o644),
				withArgs("sh", "-c", "trap 'exit 5' TERM; "+ready+idle))...)
			run.WaitOutput("ready", initLimit)
			if strings.HasPrefix(c.name, "systemd") {
				run.booted()
			}
			if c.opts != nil {
				// It takes terminals as it starts; without it there would be nothing to see.
				if got := run.Exec("systemctl", "is-active", "systemd-logind"); got.Stdout != "active\n" {
					t.Errorf("logind: %+v", got)
				}
			}
			if open := run.terminals(); len(open) > 0 {
				t.Errorf("the host's terminals are open: %q", open)
			}
			check := func(when string) {
				t.Helper()
				after := sysctls(t)
				for name, value := range before {
					if now, found := after[name]; found && now != value {
						t.Errorf("%s: %s was %q, is %q", when, name, value, now)
					}
				}
				if got := hostname(); got != "the-host" {
					t.Errorf("%s: the hostname is %q", when, got)
				}
			}
			check("running")
			run.Kill(syscall.SIGTERM)
			if code := run.Wait(initLimit); code != 5 {
				run.fatal("exit status %d", code)
			}
			run.Delete()
			check("ended")
		})
	}
}

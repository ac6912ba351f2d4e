package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/integration/containerdtest"
	"containerd-shim-rich/launch"
)

// What puts processes under the limits of a component never names one that is not the container's own.
func TestT4ComponentLimitsNameHostPIDs(t *testing.T) {
	o := newOperator(t)
	const sleep = "while :; do busybox sleep 1000; done"
	o.script("memory", sleep, `memory = "16m"`)
	o.script("cpus", sleep, "cpus = 0.5")
	o.script("free", sleep, "")
	for _, key := range []string{"memory", "cpus"} {
		for _, sharing := range []string{"host", "another"} {
			t.Run(key+" "+sharing, func(t *testing.T) {
				opts := []taskOption{o.with(key), withInit("dumb-init"), withArgs("sh", "-c", ready+idle)}
				words := []string{"/components.d/" + key + ".toml", key, "linux.namespaces", "its own pid namespace"}
				if sharing == "host" {
					opts = append(opts, withSpec(oci.WithHostNamespace(specs.PIDNamespace)))
					words = append(words, "host's pid namespace")
				} else {
					other := startTask(t, imageBusybox, withInit("none"), withArgs("sleep", "1000"))
					path := fmt.Sprintf("/proc/%d/ns/pid", other.Task.Pid())
					opts = append(opts, withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: path})))
					words = append(words, path)
				}
				run, err := tryTask(t, imageBookworm, opts...)
				if err != nil {
					for _, word := range words {
						if !strings.Contains(err.Error(), word) {
							t.Errorf("the error does not say %q: %v", word, err)
						}
					}
					if left := run.cgroupsOf(); len(left) > 0 {
						t.Errorf("left: %v", left)
					}
					return
				}
				t.Errorf("create succeeds")
				if sharing != "host" {
					return
				}
				// What a process of the container can do then, which has the same process ids as this one.
				run.Start()
				run.WaitOutput("ready", runLimit)
				victim := exec.Command("sleep", "1000")
				if err := victim.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() {
					victim.Process.Kill()
					_ = victim.Wait()
				}()
				if err := run.moveByLimits(key, victim.Process.Pid); err != nil {
					t.Log(err)
				}
				if cgroups := readFile(t, fmt.Sprintf("/proc/%d/cgroup", victim.Process.Pid)); strings.Contains(cgroups, run.ID) {
					t.Errorf("a process of the host was moved:\n%s", cgroups)
				}
			})
		}
	}
	t.Run("no limits", func(t *testing.T) {
		run := startTask(t, imageBookworm, o.with("free"), withInit("dumb-init"),
			withSpec(oci.WithHostNamespace(specs.PIDNamespace)), withArgs("sh", "-c", ready+idle))
		run.WaitOutput("ready", runLimit)
		run.waitShimLog("component started", "component=free")
		run.killAndDelete()
	})
}

// moveByLimits uses what a component's launcher gets, as root in the container can by taking its place.
func (r *task) moveByLimits(name string, pid int) error {
	processes, err := containerdtest.Processes(r.daemon.Dir)
	if err != nil {
		return err
	}
	for _, p := range processes {
		if strings.HasSuffix(p.Text, "component "+name) {
			_ = syscall.Kill(p.Pid, syscall.SIGKILL)
		}
	}
	return poll(runLimit, func() error {
		socket, err := r.dialShim()
		if err != nil {
			return err
		}
		conn := launch.NewConn(socket, launch.MaxFromShim)
		defer conn.Close()
		if err := conn.Send(launch.Hello{Version: launch.Version, Role: launch.RoleComponent}); err != nil {
			return err
		}
		if err := conn.Send(launch.Component{Name: name}); err != nil {
			return err
		}
		m, files, err := conn.Receive()
		if err != nil {
			return err
		}
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		if _, ok := m.(launch.Limits); !ok {
			return fmt.Errorf("got %+v", m)
		}
		for _, f := range files {
			if _, err := fmt.Fprint(f, pid); err != nil {
				return err
			}
		}
		return nil
	})
}

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/containerdtest"
)

// The field cases about cgroups, mounts and the root file system.

// insideMount is a line of a container's /proc/self/mountinfo.
type insideMount struct {
	root, point, options, kind string
}

// mountsOf returns the mounts that a process of the container sees.
func mountsOf(t *testing.T, mountinfo string) []insideMount {
	t.Helper()
	var mounts []insideMount
	for line := range strings.Lines(mountinfo) {
		head, tail, _ := strings.Cut(strings.TrimSpace(line), " - ")
		fields, source := strings.Fields(head), strings.Fields(tail)
		if len(fields) < 6 || len(source) < 3 {
			t.Fatalf("cannot read %q", line)
		}
		mounts = append(mounts, insideMount{root: fields[3], point: containerdtest.UnescapeMount(fields[4]), options: fields[5] + "," + source[2], kind: source[0]})
	}
	return mounts
}

// mountedAt returns the mounts whose mount point is exactly that.
func mountedAt(mounts []insideMount, point string) []insideMount {
	return slices.DeleteFunc(slices.Clone(mounts), func(m insideMount) bool { return m.point != point })
}

func (m insideMount) readOnly() bool { return slices.Contains(strings.Split(m.options, ","), "ro") }

// cgroupMount is what CRI and ctr give every container.
var cgroupMount = specs.Mount{
	Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
	Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
}

func TestB13Cgroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		opts []taskOption
	}{
		{"absent", nil},
		{"stock", []taskOption{withSpec(oci.WithMounts([]specs.Mount{cgroupMount}))}},
		{"bound read-only", []taskOption{withBind("/sys/fs/cgroup", "/sys/fs/cgroup", "rbind", "ro")}},
		{"bound", []taskOption{withBind("/sys/fs/cgroup", "/sys/fs/cgroup", "rbind", "rw")}},
		{"namespace", []taskOption{withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}), oci.WithMounts([]specs.Mount{cgroupMount}))}},
		{"controllers bound", []taskOption{
			withBind("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory", "rbind", "rw"),
			withBind("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified", "rbind", "rw"),
		}},
	} {
		if unified() && c.name == "controllers bound" {
			continue // cgroup v2 has one hierarchy
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			variants := []variant{systemdBookworm}
			if c.name == "stock" {
				variants = append(variants, systemdSid)
			}
			forEach(t, variants, func(t *testing.T, v variant) {
				run := startTask(t, v.image, v.with(append(c.opts,
					withArgs("sh", "-c", "cat /proc/self/mountinfo && mkdir /sys/fs/cgroup/mine && echo made; exec sleep infinity"))...)...)
				run.WaitOutput("made\n", runLimit)
				var points []insideMount
				for _, m := range mountsOf(t, strings.TrimSuffix(run.Stdout.String(), "made\n")) {
					if m.point == "/sys/fs/cgroup" || strings.HasPrefix(m.point, "/sys/fs/cgroup/") {
						points = append(points, m)
					}
				}
				if len(points) != 1 || points[0].kind != "cgroup2" || points[0].root != "/" || points[0].readOnly() {
					t.Errorf("the cgroup mounts are %+v, want one that is private and writable", points)
				}
				// What the container makes is in its own subtree.
				if _, err := os.Stat(run.ownCgroup("mine")); err != nil {
					t.Error(err)
				}
				if got := run.Exec("ls", "/sys/fs/cgroup"); strings.Contains(got.Stdout, runGroup) {
					t.Errorf("the host's cgroups are there: %s", got.Stdout)
				}
				if state := run.booted(); state != "running" {
					t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
				}
				run.stop()
			})
		})
	}

	// Limits are set, and hold, outside.
	t.Run("limits", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			const limit = 96 << 20
			run, log := watch(t, v.image, v.with(
				withSpec(oci.WithMemoryLimit(limit), oci.WithPidsLimit(123), oci.WithCPUCFS(50000, 100000)),
				// tail keeps the last line, which has no end.
				withArgs("sh", "-c", "echo $$; read go < /mnt/go; tail -n 1 /dev/zero; exit $?"),
				withFifo(t, "/mnt"))...)
			run.WaitOutput("\n", runLimit)
			for _, got := range []struct{ what, value, want string }{
				{"memory", run.limit(memoryMax), fmt.Sprint(limit)}, {"pids", run.limit(pidsMax), "123"}, {"cpu quota", run.cpuQuota(), "50000"},
			} {
				if got.value != got.want {
					t.Errorf("%s is limited to %s, want %s", got.what, got.value, got.want)
				}
			}
			// The command, pid 1 and all between count.
			ctx, cancel := private.within(callLimit)
			defer cancel()
			pids, err := run.Task.Pids(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(pids) < 4 {
				t.Errorf("the processes are %v", pids)
			}
			for _, p := range pids {
				// The kernel shows a process that ends in the root of the hierarchies of v1; soon it is gone, and its pid with it.
				eventually(t, runLimit, "the limits for each process", func() error {
					in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
					if err != nil {
						return nil // it has ended
					}
					counted := slices.ContainsFunc(strings.Split(string(in), "\n"), func(line string) bool {
						_, at, _ := strings.Cut(line, ":")
						return (strings.HasPrefix(at, "memory:") || unified() && strings.HasPrefix(at, ":")) &&
							strings.HasPrefix(at[strings.Index(at, ":")+1:]+"/", private.Cgroup()+"/"+run.ID+"/")
					})
					if !counted {
						return fmt.Errorf("process %d is in %q", p.Pid, in)
					}
					return nil
				})
			}
			openFifo(t, run, "go")
			run.outcome(log, 137)
		})
	})

	// Nothing is loosened for an init that needs nothing.
	t.Run("dumb-init", func(t *testing.T) {
		t.Parallel()
		see := func(v variant) []insideMount {
			got := runTask(t, v.image, runLimit, v.with(withSpec(oci.WithMounts([]specs.Mount{cgroupMount})), withArgs("cat", "/proc/self/mountinfo"))...)
			return mountsOf(t, got.Stdout)
		}
		all := see(dumbInit)
		own := func(m insideMount) bool { return strings.HasPrefix(m.point, "/run/rich/") }
		if got := slices.DeleteFunc(slices.Clone(all), func(m insideMount) bool { return !own(m) }); len(got) != 2 {
			t.Errorf("our mounts are %+v", got)
		}
		for _, m := range all {
			if own(m) && !m.readOnly() {
				t.Errorf("writable: %+v", m)
			}
		}
		got, want := describe(slices.DeleteFunc(all, own)), describe(see(plain))
		sameLines(t, "the other mounts", got, want)
	})
}

// layerNumber matches what differs between two containers.
var layerNumber = regexp.MustCompile(`snapshots/[0-9]+/|b13cgroup-[0-9a-z-]*`)

func describe(mounts []insideMount) []string {
	var lines []string
	for _, m := range mounts {
		lines = append(lines, layerNumber.ReplaceAllString(fmt.Sprintf("%+v", m), ""))
	}
	return lines
}

// withFifo binds a folder with the fifo "go" in it.
func withFifo(t *testing.T, destination string) taskOption {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	return withBind(dir, destination, "rbind", "rw")
}

// openFifo lets a container go on that reads the fifo.
func openFifo(t *testing.T, r *task, name string) {
	t.Helper()
	ctx, cancel := private.within(callLimit)
	defer cancel()
	spec, err := r.Container.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/mnt" })
	eventually(t, runLimit, "a reader of the fifo", func() error {
		fifo, err := os.OpenFile(filepath.Join(spec.Mounts[at].Source, name), os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		_, err = fifo.WriteString("\n")
		return errors.Join(err, fifo.Close())
	})
}

const serviceAccount = "/secrets/kubernetes.io/serviceaccount"

func TestB15Run(t *testing.T) {
	t.Parallel()
	token := func(t *testing.T) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "token"), []byte("s3cret"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	bindToken := func(t *testing.T) taskOption {
		return withBind(token(t), "/var/run"+serviceAccount, "rbind", "rprivate", "ro")
	}
	// The token is there for the command and for an exec, under both names, and /run is one tmpfs.
	for _, c := range []struct {
		name     string
		variants []variant
		opts     func(t *testing.T) []taskOption
	}{
		{"CRI", append([]variant{plain}, everyInit...), func(t *testing.T) []taskOption { return []taskOption{withoutRunMount(), bindToken(t)} }},
		{"ctr", []variant{plain, systemdBookworm}, func(t *testing.T) []taskOption { return []taskOption{bindToken(t)} }},
		{"tmpfs after the token", []variant{systemdBookworm}, func(t *testing.T) []taskOption {
			return []taskOption{withoutRunMount(), bindToken(t), withSpec(oci.WithMounts([]specs.Mount{
				{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=1m"}},
			}))}
		}},
		{"no folder in the image", []variant{systemdBookworm}, func(t *testing.T) []taskOption {
			return []taskOption{withoutRunMount(), without("/run"), bindToken(t)}
		}},
		{"var-run is a folder", []variant{plain, systemdBookworm}, func(t *testing.T) []taskOption {
			return []taskOption{withoutRunMount(), without("/var/run"), withFile("/var/run/old.pid", "1\n", 0o644), bindToken(t)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, c.variants, func(t *testing.T, v variant) {
				run := startTask(t, v.image, v.with(append(c.opts(t), withArgs("sh", "-c",
					"cat /var/run"+serviceAccount+"/token; echo; cat /proc/self/mountinfo; echo done; exec sleep infinity"))...)...)
				run.WaitOutput("done\n", runLimit)
				got, mountinfo, _ := strings.Cut(strings.TrimSuffix(run.Stdout.String(), "done\n"), "\n")
				if got != "s3cret" {
					t.Errorf("the command read %q", got)
				}
				if got := run.readInside("/var/run" + serviceAccount + "/token"); got != "s3cret" {
					t.Errorf("an exec read %q", got)
				}
				mounts := mountsOf(t, mountinfo)
				tokens := slices.DeleteFunc(slices.Clone(mounts), func(m insideMount) bool { return !strings.HasSuffix(m.point, serviceAccount) })
				if len(tokens) != 1 || !tokens[0].readOnly() {
					t.Errorf("the token is mounted at %+v", tokens)
				}
				if v.init == "systemd" {
					if at := mountedAt(mounts, "/run"); len(at) != 1 || at[0].kind != "tmpfs" || at[0].readOnly() {
						t.Errorf("at /run is %+v", at)
					}
					if state := run.booted(); state != "running" {
						t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
					}
				}
				run.Kill(9)
				run.Wait(runLimit)
				run.Delete()
			})
		})
	}

	// Nothing of ours goes into a volume at /run, also not a mount point.
	t.Run("volume", func(t *testing.T) {
		t.Parallel()
		forEach(t, everyInit, func(t *testing.T, v variant) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("kept"), 0o644); err != nil {
				t.Fatal(err)
			}
			before := listFolder(t, dir)
			run, log := watch(t, v.image, v.with(withoutRunMount(), withBind(dir, "/run", "rbind", "rw"),
				withArgs("sh", "-c", "trap 'exit 5' TERM; cat /run/mine; echo; cat /proc/self/mountinfo; echo done; "+idle))...)
			run.WaitOutput("done\n", runLimit)
			got, mountinfo, _ := strings.Cut(strings.TrimSuffix(run.Stdout.String(), "done\n"), "\n")
			if got != "kept" {
				t.Errorf("the command read %q", got)
			}
			if at := mountedAt(mountsOf(t, mountinfo), "/run"); len(at) != 1 || at[0].kind == "tmpfs" {
				t.Errorf("at /run is %+v", at)
			}
			run.Kill(15)
			run.outcome(log, 5)
			after := listFolder(t, dir)
			if v.init == "systemd" {
				// What its own programs leave at /run is what whoever mounts a volume there asks for.
				after = slices.DeleteFunc(after, func(line string) bool {
					return !slices.Contains(before, line) && !strings.Contains(line, "/rich")
				})
			}
			sameLines(t, "the volume", after, before)
		})
	})
	t.Run("volumes", func(t *testing.T) {
		t.Parallel()
		forEach(t, []variant{plain, dumbInit, systemdBookworm, systemdSid}, func(t *testing.T, v variant) {
			dirs := map[string]string{}
			opts := []taskOption{withoutRunMount()}
			for _, point := range []string{"/run/lock", "/run/secrets/db", "/tmp", "/var/run/deep/er"} {
				dirs[point] = t.TempDir()
				if err := os.WriteFile(filepath.Join(dirs[point], "mine"), []byte(point), 0o644); err != nil {
					t.Fatal(err)
				}
				opts = append(opts, withBind(dirs[point], point, "rbind", "rw"))
			}
			socket := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			opts = append(opts, withBind(socket, "/run/app.sock", "bind", "rw"))
			got := runTask(t, v.image, runLimit, v.with(append(opts, withArgs("sh", "-c",
				"cat /run/lock/mine /run/secrets/db/mine /tmp/mine /run/deep/er/mine; test -S /run/app.sock && echo; echo new > /tmp/new; echo x > /run/secrets/db/new"))...)...)
			if want := (result{Stdout: "/run/lock/run/secrets/db/tmp/var/run/deep/er\n"}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			for _, file := range []string{dirs["/tmp"] + "/new", dirs["/run/secrets/db"] + "/new"} {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
		})
	})
	// What the image has below /run is there, unless the spec itself hides it.
	t.Run("image", func(t *testing.T) {
		t.Parallel()
		baked := []taskOption{withFile("/run/mysqld/conf", "baked", 0o640), withRootfs(func(root *os.Root) error {
			return errors.Join(root.Chown("run/mysqld", 1000, 1001), root.Chmod("run/mysqld", fs.ModeSetgid|0o750), root.Chown("run/mysqld/conf", 1000, 1001),
				root.Symlink("mysqld/conf", "run/link"))
		})}
		script := withArgs("sh", "-c", "stat -c '%n %u %g %a' /run/mysqld /run/mysqld/conf; cat /run/link && echo")
		for name, more := range map[string][]taskOption{"shown": {withoutRunMount()}, "hidden by the spec": nil} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				opts := slices.Concat(baked, []taskOption{script}, more)
				want := runTask(t, plain.image, runLimit, plain.with(opts...)...)
				if shown := strings.Contains(want.Stdout, "1000 1001 2750\n") && strings.Contains(want.Stdout, "baked"); shown != (name == "shown") {
					t.Fatalf("without init: %+v", want)
				}
				forEach(t, everyInit, func(t *testing.T, v variant) {
					if got := runTask(t, v.image, runLimit, v.with(opts...)...); got != want {
						t.Errorf("got %+v, want %+v", got, want)
					}
				})
			})
		}
	})
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}\n$`)

func TestB17ReadOnly(t *testing.T) {
	t.Parallel()
	const bakedID = "0123456789abcdef0123456789abcdef\n"
	identity := map[string]taskOption{
		"without machine-id": without("/etc/machine-id"),
		"empty machine-id":   withFile("/etc/machine-id", "", 0o444),
		"baked machine-id":   withFile("/etc/machine-id", bakedID, 0o444),
		"bare": func(s *taskSettings) {
			for _, name := range []string{"/etc/machine-id", "/etc/systemd", "/run", "/var/run", "/var/lib/dbus/machine-id"} {
				without(name)(s)
			}
		},
	}
	var ids sync.Map
	for name, change := range identity {
		for _, readOnly := range []bool{true, false} {
			for _, v := range []variant{systemdBookworm, systemdSid} {
				if v == systemdSid && name != "bare" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", name, v.name, map[bool]string{true: "ro", false: "rw"}[readOnly]), func(t *testing.T) {
					t.Parallel()
					opts := v.with(withoutRunMount(), change, withArgs("sh", "-c", "cat /etc/machine-id; read go < /mnt/go; exit 4"), withFifo(t, "/mnt"))
					if readOnly {
						opts = append(opts, withSpec(oci.WithRootFSReadonly()))
					}
					id := newID(t)
					var before []string
					run := newTask(t, v.image, append(opts, withID(id), withWritten(&before))...)
					run.Start()
					var own []string
					for range 2 {
						run.WaitOutput("\n", runLimit)
						own = append(own, run.Stdout.String())
						if state := run.booted(); state != "running" && (!readOnly || state != "degraded") {
							t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
						}
						// D-Bus and the journal go by the same id.
						if got := run.Exec("sh", "-c", "systemd-id128 machine-id && basename -a /*/log/journal/*"); got.Stdout != own[0]+own[0] {
							t.Errorf("systemd's id is %+v, the file has %s", got, own[0])
						}
						openFifo(t, run, "go")
						if code := run.Wait(runLimit); code != 4 {
							t.Errorf("exit status %d, want 4", code)
						}
						run.endTask()
						sameLines(t, "the root file system", ofServices(run.written(), readOnly), ofServices(before, readOnly))
						run.again(func(*specs.Process) {})
					}
					run.WaitOutput("\n", runLimit)
					run.Kill(9)
					run.Wait(runLimit)
					run.endTask()
					sameLines(t, "the root file system after kill", ofServices(run.written(), readOnly), ofServices(before, readOnly))
					if own[0] != own[1] || !machineID.MatchString(own[0]) || own[0] == bakedID {
						t.Errorf("the ids are %q", own)
					}
					if other, found := ids.LoadOrStore(own[0], t.Name()); found {
						t.Errorf("%s had the same id", other)
					}
				})
			}
		}
	}
	// Every other image and init, with the least of a root file system.
	for _, readOnly := range []bool{true, false} {
		t.Run(map[bool]string{true: "scratch ro", false: "scratch rw"}[readOnly], func(t *testing.T) {
			t.Parallel()
			id := newID(t)
			opts := []taskOption{withID(id), withInit("dumb-init"), withoutRunMount(), withArgs("/hello", "exit", "4")}
			if readOnly {
				opts = append(opts, withSpec(oci.WithRootFSReadonly()))
			}
			var before []string
			run := newTask(t, imageScratch, append(opts, withWritten(&before))...)
			run.Start()
			if code := run.Wait(runLimit); code != 4 {
				t.Errorf("exit status %d, want 4", code)
			}
			run.endTask()
			// libcontainer makes the mount points of the spec itself and leaves them, as runc does.
			left := slices.DeleteFunc(run.written(), func(line string) bool {
				name, _, _ := strings.Cut(line, " ")
				return slices.Contains([]string{"/dev", "/proc", "/sys"}, name)
			})
			sameLines(t, "the root file system", left, before)
		})
	}
}

// byServices matches what the image's own services write where they should.
var byServices = regexp.MustCompile(`^/(etc/\.(pwd\.lock|updated)|tmp/.*|var/(\.updated|run|log/.*|tmp/.*|lib/(dbus/machine-id|systemd/.*))) `)

func ofServices(lines []string, readOnly bool) []string {
	if readOnly {
		return lines
	}
	return slices.DeleteFunc(slices.Clone(lines), byServices.MatchString)
}

package initmode_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
	"containerd-shim-rich/oci"
)

// baseSpec is what containerd's CRI makes for a plain container.
func baseSpec() *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	return &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: "rootfs"},
		Annotations: map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "app"},
		Process: &specs.Process{
			Args:         []string{"/bin/sh", "-c", "exit 42"},
			Env:          []string{"PATH=/bin", "A=hello world", "SYSTEMD_LOG_LEVEL=debug", "LD_PRELOAD=/x.so", "rich_mode_launch_manner=none"},
			Cwd:          "/srv",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 20, Hard: 1 << 20}, {Type: "RLIMIT_CORE"}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/k8s.io/app",
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace, Path: "/proc/4242/ns/net"},
			},
			Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(256 << 20))}},
		},
	}
}

// planCase is a container whose plan is tested.
type planCase struct {
	name    string
	rootfs  map[string]string // debian if nil
	options map[string]string // annotations, without their prefix
	host    string            // the host's file
	cgroups initmode.CgroupLayout
	change  func(*specs.Spec)
}

var planCases = slices.Concat(basicCases, componentCases(), hostCases, serviceCases)

// spec is the base with what the case changes in it.
func (tc planCase) spec() *specs.Spec {
	spec := baseSpec()
	if tc.change != nil {
		tc.change(spec)
	}
	for k, v := range tc.options {
		spec.Annotations[config.Prefix+k] = v
	}
	return spec
}

// result is a plan, and the spec that carries it out.
type result struct {
	plan *initmode.Plan
	spec *specs.Spec
}

// run plans and rewrites the spec of the case.
func (tc planCase) run(t testing.TB, spec *specs.Spec) (result, error) {
	t.Helper()
	files := tc.rootfs
	if files == nil {
		files = debian
	}
	host, err := config.ParseHost([]byte(tc.host))
	if err != nil {
		t.Fatal(err)
	}
	opts, err := config.Resolve(config.Sources{
		Annotations: spec.Annotations, Container: initmode.ContainerName(spec.Annotations), Env: spec.Process.Env,
		InPod: initmode.IsCRI(spec.Annotations), Host: host,
	})
	if err != nil {
		return result{}, err
	}
	plan, err := initmode.New(&initmode.Request{
		Spec: spec, Rootfs: initmode.MakeRootfs(t, files), Options: opts,
		MachineID: "0123456789abcdef0123456789abcdef",
		RunDir:    "/bundle/rich/run", Launcher: "/bundle/rich/bin/rich-launch", DumbInit: "/bundle/rich/bin/dumb-init",
		Cgroups: tc.cgroups, HostNetwork: initmode.Namespace(spec, specs.NetworkNamespace) == nil,
		Components: offered(t, opts.Components), ComponentsDir: "/bundle/rich/components",
		ContainerID: "app-1", Namespace: "k8s.io",
		Limits: []launch.Rlimit{
			{Resource: unix.RLIMIT_NOFILE, Soft: 1024, Hard: 4096},
			{Resource: unix.RLIMIT_CORE, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
			{Resource: unix.RLIMIT_CPU, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
		},
	})
	if err != nil {
		return result{}, err
	}
	return result{plan, oci.Rewrite(spec, plan)}, nil
}

// Neither the plan nor what carries it out changes the spec that they are made of.
func TestPlanIsPure(t *testing.T) {
	for _, tc := range planCases {
		want, err := json.Marshal(tc.spec())
		if err != nil {
			t.Fatal(err)
		}
		spec := tc.spec()
		_, _ = tc.run(t, spec) // of some it is an error
		if got, err := json.Marshal(spec); err != nil || string(got) != string(want) {
			t.Errorf("%s: the input was changed to\n%s, %v", tc.name, got, err)
		}
	}
}

// Whatever the engine mounts where, it is there afterwards, and exactly one
// mount is at the cgroup's place.
func FuzzT17Mounts(f *testing.F) {
	f.Add("/run", "tmpfs", "/run/secrets", "/var/run/x", true)
	f.Add("/sys/fs/cgroup", "bind", "/run/lock", "/run", false)
	f.Add("/", "bind", "..", "run/rich/launch", true)
	f.Add("/run/rich", "bind", "/dev/rich/x", "/run/host", true)
	f.Fuzz(func(t *testing.T, a, kind, b, c string, systemd bool) {
		tc := planCase{change: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: a, Type: kind}, bind(b), bind(c))
		}}
		if !systemd {
			tc.options = map[string]string{"init": "dumb-init"}
		}
		spec := tc.spec()
		got, err := tc.run(t, spec)
		if err != nil {
			return
		}
		if systemd && got.plan.Init != config.InitSystemd && len(got.plan.Notes) == 0 || !systemd && got.plan.Init != config.InitDumbInit {
			t.Fatalf("init %q", got.plan.Init)
		}
		if got.plan.Init != config.InitNone && !slices.ContainsFunc(got.spec.Mounts, func(m specs.Mount) bool { return strings.HasSuffix(m.Destination, "/rich/launch") }) {
			t.Fatal("no launcher")
		}
		n := 0
		for _, m := range got.spec.Mounts {
			if filepath.Clean("/"+m.Destination) == "/sys/fs/cgroup" {
				n++
			}
		}
		if got.plan.Init == config.InitSystemd && n != 1 {
			t.Errorf("%d mounts at the cgroup's place", n)
		}
		for _, m := range spec.Mounts {
			kept := slices.ContainsFunc(got.spec.Mounts, func(o specs.Mount) bool { return reflect.DeepEqual(o, m) })
			cgroups := filepath.Clean("/"+m.Destination) == "/sys/fs/cgroup" && (m.Type == "cgroup" || m.Type == "cgroup2")
			if replaced := cgroups && got.plan.Init == config.InitSystemd; !kept && !replaced {
				t.Errorf("%+v is dropped", m)
			}
		}
	})
}

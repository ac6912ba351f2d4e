package initmode_test

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/components"
	"containerd-shim-rich/initmode"
)

// agents are what the host of the cases offers.
var agents = map[string]string{
	"early": "directory = \"/opt/early\"\nexec = [\"bin/early\", \"%n $x\"]\nstart = \"before\"\nready = [\"/bin/check\"]\nmemory = \"64m\"\ncpus = 0.25\nuser = \"65534\"\n",
	"late":  "exec = [\"/bin/late\"]\nenv = { A = \"b\\nc\" }\nrestart = \"never\"\n",
	"own":   "exec = [\"/bin/own\"]\nuser = \"command\"\n",
}

func offered(t testing.TB, names []string) (chosen []*components.Definition) {
	t.Helper()
	for _, name := range names {
		d, err := components.Parse(name, []byte(agents[name]))
		if err != nil {
			t.Fatal(err)
		}
		chosen = append(chosen, d)
	}
	return chosen
}

func notRoot(s *specs.Spec) {
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1002}}
	s.Process.NoNewPrivileges = true
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
}

// componentCases are containers with components of the host.
func componentCases() []planCase {
	options := func(name string, more ...string) map[string]string {
		set := map[string]string{"components": "early,late"}
		if name != "" {
			set["init"] = name
		}
		for i := 0; i < len(more); i += 2 {
			set[more[i]] = more[i+1]
		}
		return set
	}
	return []planCase{
		{name: "components-systemd", options: options("systemd")},
		{name: "components-systemd-hybrid-cgroups", options: options("systemd"), cgroups: initmode.CgroupHybrid},
		{name: "components-sysvinit", options: options("sbin-init"), rootfs: inits["sysvinit"]},
		{name: "components-busybox", options: options("sbin-init"), rootfs: inits["busybox"]},
		{name: "components-openrc", options: options("sbin-init"), rootfs: inits["openrc"]},
		{name: "components-runit", options: options("sbin-init"), rootfs: inits["runit-debian"]},
		{name: "components-dumb-init", options: options("dumb-init")},
		{name: "components-dumb-init-not-root", options: options("dumb-init"), change: notRoot},
		{name: "components-dumb-init-as-command", options: options("", "components", "own", "root-init", "never"), change: notRoot},
		{name: "components-sandbox", options: options(""), change: func(s *specs.Spec) { s.Annotations["io.kubernetes.cri.container-type"] = "sandbox" }},
		{name: "components-run-of-the-user", options: options("dumb-init"), change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/run")) }},
		{name: "auto-cmd-is-systemd-with-components", options: options(""), change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} }},
		{
			name: "auto-cmd-is-tini-with-components", options: options(""), rootfs: with(debian, map[string]string{"usr/bin/tini": elf}),
			change: func(s *specs.Spec) { s.Process.Args = []string{"/usr/bin/tini", "--", "sh"} },
		},
		{name: "components-cmd-is-sysvinit", options: options(""), rootfs: inits["sysvinit"], change: func(s *specs.Spec) { s.Process.Args = []string{"/sbin/init"} }},
		{name: "error-components-none", options: options("none")},
		{name: "error-components-not-root", options: options(""), change: notRoot},
		{name: "error-components-root-init-never", options: options("dumb-init", "root-init", "never"), change: notRoot},
		{
			name: "error-components-cmd-is-systemd-not-root", options: options(""), change: func(s *specs.Spec) {
				notRoot(s)
				s.Process.Args = []string{"/sbin/init"}
			},
		},
	}
}

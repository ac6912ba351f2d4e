package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// What cannot work is refused at create, with words that name the field and the way out, and leaves nothing behind.
// Not parallel: the host is compared.

func TestBadInputCreate(t *testing.T) {
	for _, c := range []struct {
		name  string
		image string
		words []string
		opts  []taskOption
	}{
		{"no systemd", imageBusybox, []string{"rich.containerd.io/init", "systemd", "dumb-init"}, []taskOption{withInit("systemd")}},
		{"nothing at all", imageScratch, []string{"rich.containerd.io/init", "systemd", "dumb-init"}, []taskOption{withInit("systemd"), withArgs("/hello")}},
		{
			"systemd of another container", imageBookworm,
			[]string{"rich.containerd.io/app.init", "systemd", "dumb-init"},
			[]taskOption{withAnnotation("io.kubernetes.cri.container-name", "app"), withRich("app.init", "systemd"), without("/usr/lib/systemd/systemd")},
		},
		{"no sbin-init", imageBusybox, []string{"rich.containerd.io/init", "/sbin/init", "dumb-init"}, []taskOption{withInit("sbin-init")}},
		{
			"sbin-init links out", imageBookworm,
			[]string{"rich.containerd.io/init", "/sbin/init", "leaves the root file system"},
			[]taskOption{withInit("sbin-init"), withLink("/sbin/init", "../../../../../../../usr/lib/systemd/systemd")},
		},
		{
			"sbin-init links to the host", imageBusybox,
			[]string{"rich.containerd.io/init", "/sbin/init", "/proc/self/exe"},
			[]taskOption{withInit("sbin-init"), withLink("/sbin", "/usr/sbin"), withLink("/usr/sbin/init", "/proc/self/exe")},
		},
		{
			"sbin-init is a loop", imageBusybox,
			[]string{"rich.containerd.io/init", "/sbin/init"},
			[]taskOption{withInit("sbin-init"), withLink("/sbin", "/usr/sbin"), withLink("/usr/sbin/init", "init")},
		},
		{"sbin-init is no init", imageBookworm, []string{"/sbin/init", "no known init", "dumb-init"}, []taskOption{withInit("sbin-init"), withLink("/sbin/init", "/usr/bin/env")}},
		{"sbin-init is a script", imageBookworm, []string{"/sbin/init", "dumb-init"}, []taskOption{withInit("sbin-init"), without("/sbin/init"), withFile("/usr/sbin/init", "#!/bin/sh\n", 0o755)}},
		{"sbin-init is a folder", imageBookworm, []string{"/sbin/init", "dumb-init"}, []taskOption{withInit("sbin-init"), without("/sbin/init"), withFile("/usr/sbin/init/x", "", 0o755)}},
		{
			"systemd links out", imageBookworm,
			[]string{"rich.containerd.io/init", "leaves the root file system"},
			[]taskOption{withInit("systemd"), withLink("/usr/lib/systemd/systemd", "../../../../../../usr/lib/systemd/systemd"), without("/usr/sbin/init")},
		},
		{"shared pid namespace", imageBookworm, []string{"linux.namespaces", "rich.containerd.io/init", "dumb-init"}, []taskOption{withInit("systemd"), withPIDNamespace(fmt.Sprintf("/proc/%d/ns/pid", os.Getpid()))}},
		{"host pid namespace", imageBookworm, []string{"linux.namespaces", "rich.containerd.io/init", "dumb-init"}, []taskOption{withInit("systemd"), withSpec(oci.WithHostNamespace(specs.PIDNamespace))}},
		{"host pid namespace and sbin-init", imageBookworm, []string{"linux.namespaces", "rich.containerd.io/init", "dumb-init"}, []taskOption{withInit("sbin-init"), withSpec(oci.WithHostNamespace(specs.PIDNamespace))}},
		{"unknown init", imageBookworm, []string{"rich.containerd.io/init", `"sytemd"`, "systemd, sbin-init, dumb-init, none"}, []taskOption{withInit("sytemd")}},
		{"empty init", imageBookworm, []string{"rich.containerd.io/init", `""`, "systemd, sbin-init, dumb-init, none"}, []taskOption{withInit("")}},
		{"unknown option", imageBookworm, []string{"rich.containerd.io/inti", `"init"`}, []taskOption{withRich("inti", "systemd")}},
		{"unknown option of a container", imageBookworm, []string{"rich.containerd.io/app.inti", `"init"`}, []taskOption{withRich("app.inti", "systemd")}},
		{"halt-timeout", imageBookworm, []string{"rich.containerd.io/halt-timeout", `"0"`, "30s"}, []taskOption{withRich("halt-timeout", "0")}},
		{"run-size", imageBookworm, []string{"rich.containerd.io/run-size", `"lots"`, "128m"}, []taskOption{withRich("run-size", "lots")}},
		{"stop-signal", imageBookworm, []string{"rich.containerd.io/stop-signal", `"SIGSTOPP"`, "SIGTERM"}, []taskOption{withRich("stop-signal", "SIGSTOPP")}},
		{"root-init", imageBookworm, []string{"rich.containerd.io/root-init", `"maybe"`, "explicit"}, []taskOption{withRich("root-init", "maybe")}},
		{"no root for an init", imageBookworm, []string{"process.user.uid", "1234", "root-init", "dumb-init"}, []taskOption{withInit("systemd"), withRich("root-init", "never"), withUser(1234, 1234)}},
		{"unknown service", imageBookworm, []string{"rich.containerd.io/services", `"crond"`, "crond.service", "cron"}, []taskOption{withRich("services", "crond")}},
		{"unknown service of sysvinit", imageSysvinit, []string{"rich.containerd.io/services", `"crond"`, "/etc/init.d", "cron"}, []taskOption{withRich("services", "crond")}},
		{"services of dumb-init", imageBookworm, []string{"rich.containerd.io/services", `"cron"`, "dumb-init", "systemd"}, []taskOption{withInit("dumb-init"), withRich("services", "cron")}},
		{"services of no init", imageBusybox, []string{"rich.containerd.io/services", `"cron"`, "dumb-init", "another init"}, []taskOption{withRich("services", "cron")}},
		{"service that is masked", imageBookworm, []string{"rich.containerd.io/services", `"ssh"`, "mask"}, []taskOption{withRich("services", "ssh"), withRich("mask", "sshd")}},
		{"name of a service", imageBookworm, []string{"rich.containerd.io/mask", `"../x"`, "letters"}, []taskOption{withRich("mask", "../x")}},
		{"launch manner", imageBookworm, []string{"rich_mode_launch_manner", `"upstart"`, "systemd, sbin-init, dumb-init, none"}, []taskOption{withEnv("rich_mode=true", "rich_mode_launch_manner=upstart")}},
		{"BinaryName", imageBookworm, []string{"BinaryName", "/usr/bin/runc", "remove"}, []taskOption{withRuntimeOptions(&options.Options{BinaryName: "/usr/bin/runc"})}},
		{"rlimit", imageBookworm, []string{"process.rlimits", "RLIMIT_FOO"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_FOO"}} })}},
		{"rlimit twice", imageBookworm, []string{"process.rlimits", "RLIMIT_CORE"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		})}},
		{"scheduler", imageBookworm, []string{"process.scheduler.policy", "SCHED_FOO"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: "SCHED_FOO"} })}},
		{"io class", imageBookworm, []string{"process.ioPriority.class", "IOPRIO_FOO"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) { p.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_FOO"} })}},
		{"cwd", imageBookworm, []string{"process.cwd", `"tmp"`, "absolute"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) { p.Cwd = "tmp" })}},
		{"args", imageBookworm, []string{"process.args", "command"}, []taskOption{withInit("systemd"), withProcess(func(p *specs.Process) { p.Args = nil })}},
		{"args of dumb-init", imageBusybox, []string{"process.args", "command"}, []taskOption{withInit("dumb-init"), withProcess(func(p *specs.Process) { p.Args = nil })}},
		{"no place", imageBookworm, []string{"mounts", "/run", "/dev", "tmpfs"}, []taskOption{withInit("systemd"), withoutRunMount(), withBind(t.TempDir(), "/run", "rbind", "rw"), withBind(t.TempDir(), "/dev", "rbind", "rw")}},
		{"machine-id links out", imageBookworm, []string{"/etc/machine-id", "leaves the root file system"}, []taskOption{withInit("systemd"), withLink("/etc/machine-id", "../../../../../../etc/machine-id")}},
		{"machine-id is a folder", imageBookworm, []string{"/etc/machine-id"}, []taskOption{withInit("systemd"), without("/etc/machine-id"), withFile("/etc/machine-id/x", "", 0o644)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before []string
			compare := snapshotHost(t)
			run, err := tryTask(t, c.image, append(c.opts, withWritten(&before))...)
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q", word)
				}
			}
			if t.Failed() {
				t.Log(err)
			}
			compare()
			sameLines(t, "the root file system", run.written(), before)
		})
	}
}

// withPIDNamespace shares the pid namespace at a path.
func withPIDNamespace(path string) taskOption {
	return withSpec(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: path}))
}

// What has no way to an error at create says it in the container's log.
func TestBadInputCommand(t *testing.T) {
	for _, v := range []variant{dumbInit, systemdBookworm} {
		t.Run(v.name, func(t *testing.T) {
			compare := snapshotHost(t)
			got := runTask(t, v.image, runLimit, v.with(withArgs("/no/such/program"))...)
			if got.Code != 127 || !strings.Contains(got.Stderr, "/no/such/program") || got.Stdout != "" {
				t.Errorf("got %+v", got)
			}
			compare()
		})
	}
}

// A whole life leaves nothing either.
func TestNothingLeft(t *testing.T) {
	for _, v := range []variant{dumbInit, systemdBookworm, systemdSid} {
		t.Run(v.name, func(t *testing.T) {
			compare := snapshotHost(t)
			run := startTask(t, v.image, v.with(withoutRunMount(), withArgs("sh", "-c", ready+idle))...)
			run.WaitOutput("ready", runLimit)
			run.Exec("true")
			run.stop()
			compare()
		})
	}
}

// Where a full init has no place, auto settles for dumb-init, and all its processes end with it.
func TestB21SharedPIDNamespace(t *testing.T) {
	for name, option := range map[string]taskOption{
		"host":   withSpec(oci.WithHostNamespace(specs.PIDNamespace)),
		"shared": withPIDNamespace(fmt.Sprintf("/proc/%d/ns/pid", os.Getpid())),
	} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			got := runTask(t, imageBookworm, runLimit, withInit("auto"), option, withArgs("sh", "-c", "sleep 1000 >/dev/null 2>&1 & exit 3"))
			if want := (result{Code: 3}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			compare()
		})
	}
}

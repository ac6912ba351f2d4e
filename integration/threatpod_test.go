package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const rootInitFile = "/etc/containerd/rich.toml"

// inPod is a container as the CRI makes it, with a user who is not root.
func inPod(opts ...taskOption) []taskOption {
	return append([]taskOption{withAnnotation("io.kubernetes.cri.container-type", "container"), withAnnotation("io.kubernetes.cri.container-name", "app"), withUser(1000, 1001, 2000)}, opts...)
}

// whoRan tells who a hook runs as.
func whoRan(name string) hook {
	return script(`echo $(id -u) $(id -g) $(id -G | tr ' ' '\n' | sort -n) $(sed -n 's/^Cap\(Prm\|Bnd\):[[:space:]]*//p' /proc/self/status) >>/notes/` + name)
}

// open lets everybody write notes.
func (n notes) open() notes {
	n.t.Helper()
	if err := os.Chmod(n.dir, 0o777); err != nil {
		n.t.Fatal(err)
	}
	return n
}

// A pod's author gets nothing that runs as root in a container whose user is not, and neither does anybody where root-init
// is never: no init, no service and no hook.
func TestT9Refused(t *testing.T) {
	never := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"never\"\nlock = [\"root-init\"]\n"})
	explicit := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"explicit\"\n"})
	hookAs := func(user string) taskOption {
		return withHookOption(t, "prestart", hook{Path: "/bin/true", User: user})
	}
	for _, c := range []struct {
		name  string
		opts  []taskOption
		words []string
	}{
		{"systemd", inPod(withInit("systemd")), []string{"process.user.uid", "1000", `"systemd"`, "root-init", rootInitFile}},
		{"sbin-init", inPod(withInit("sbin-init")), []string{"process.user.uid", `"sbin-init"`, rootInitFile}},
		{"systemd by the image", inPod(withEnv("rich_mode=true", "rich_mode_launch_manner=systemd")), []string{"process.user.uid", `"systemd"`, rootInitFile}},
		{"services", inPod(withRich("services", "cron")), []string{"rich.containerd.io/services", "dumb-init"}},
		{"raised", inPod(withInit("systemd"), withRich("root-init", "explicit")), []string{"annotation rich.containerd.io/root-init", `"explicit"`, "administrator", rootInitFile}},
		{"raised for the container", inPod(withRich("app.root-init", "always")), []string{"annotation rich.containerd.io/app.root-init", `"always"`, "administrator", rootInitFile}},
		{"raised above what is allowed", inPod(withHost(explicit), withRich("root-init", "always")), []string{"annotation rich.containerd.io/root-init", `"always"`, rootInitFile}},
		{"hook as root", inPod(hookAs("0")), []string{"annotation rich.containerd.io/prestart: hook 1", `"0"`, `"1000:1001"`, rootInitFile}},
		{"hook as somebody else", inPod(hookAs("1001")), []string{"rich.containerd.io/prestart", `"1001"`}},
		{"hook of root's group", inPod(hookAs("1000:0")), []string{"rich.containerd.io/prestart", `"1000:0"`}},
		{"hook as root where never", []taskOption{withHost(never), withUser(1000, 1001), hookAs("0:0")}, []string{"rich.containerd.io/prestart", `"0:0"`, "never"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBookworm, append(c.opts, withArgs("true"))...)
			expectError(t, err, c.words)
			compare()
		})
	}
}

// Hooks that may not be root's run as the command's user, with its groups and capabilities.
func TestT9Hooks(t *testing.T) {
	t.Parallel()
	const own, none, bind = "1000 1001 1001 2000 ", "0000000000000000 ", "0000000000000400"
	bounded := withProcess(func(p *specs.Process) {
		p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_BIND_SERVICE"}}
	})
	never := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"never\"\nlock = [\"root-init\"]\n"})
	explicit := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"explicit\"\n"})
	operators := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"never\"\n" +
		"prestart = '''[{\"path\":\"/bin/sh\",\"args\":[\"sh\",\"-c\",\"id -u >/notes/operator\"]}]'''\n"})
	for _, init := range []string{"auto", "dumb-init", "none"} {
		for _, c := range []struct {
			name string
			opts []taskOption
			want string
		}{
			{"pod", inPod(), own + none + bind},
			{"never", []taskOption{withUser(1000, 1001, 2000), withHost(never)}, own + none + bind},
			{"pod allowed", inPod(withHost(explicit)), "0 0 0 " + bind + " " + bind},
			{"no pod", []taskOption{withUser(1000, 1001, 2000)}, "0 0 0 " + bind + " " + bind},
		} {
			t.Run(c.name+"/"+init, func(t *testing.T) {
				t.Parallel()
				n := newNotes(t).open()
				got := runTask(t, imageBookworm, runLimit, append(c.opts, withInit(init), bounded, n.mount(),
					withHookOption(t, "prestart", whoRan("prestart")), withHookOption(t, "poststop", whoRan("poststop")), withArgs("true"))...)
				if got.Code != 0 {
					t.Errorf("got %+v", got)
				}
				n.want("prestart", c.want+"\n")
				n.want("poststop", c.want+"\n")
			})
		}
	}
	t.Run("the operator's", func(t *testing.T) {
		t.Parallel()
		n := newNotes(t).open()
		if got := runTask(t, imageBookworm, runLimit, inPod(withHost(operators), n.mount(), withArgs("true"))...); got.Code != 0 {
			t.Errorf("got %+v", got)
		}
		n.want("operator", "0\n")
	})
}

// What the node's administrator allows is there, and what allowPrivilegeEscalation: false says holds for all otherwise.
func TestT9Allowed(t *testing.T) {
	t.Parallel()
	explicit := newHostFiles(t, map[string]string{rootInitFile: "root-init = \"explicit\"\n"})
	noNew := withProcess(func(p *specs.Process) { p.NoNewPrivileges = true })
	show := withArgs("sh", "-c", "cat /proc/1/comm; id -u; stat -c %u /proc/1; grep -h NoNewPrivs: /proc/1/status /proc/self/status | cut -f2")
	for _, c := range []struct {
		name string
		opts []taskOption
		want string
	}{
		{"pod of root", inPod(withUser(0, 0), withInit("systemd"), noNew), "systemd 0 0 1 1"},
		{"pod of root allowed", inPod(withUser(0, 0), withInit("systemd"), noNew, withHost(explicit)), "systemd 0 0 0 1"},
		{"pod of a user allowed", inPod(withInit("systemd"), noNew, withHost(explicit)), "systemd 1000 0 0 1"},
		{"pod of a user", inPod(noNew), "dumb-init 1000 1000 1 1"},
		{"no pod", []taskOption{withUser(1000, 1000), withInit("systemd"), noNew}, "systemd 1000 0 0 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := runTask(t, imageBookworm, initLimit, append(c.opts, show)...)
			if out := strings.Join(strings.Fields(got.Stdout), " "); out != c.want || got.Code != 0 {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
	t.Run("services without new privileges", func(t *testing.T) {
		t.Parallel()
		run := startTask(t, imageBookworm, inPod(withUser(0, 0), withInit("systemd"), noNew, withArgs("sh", "-c", "echo up; "+idle))...)
		run.WaitOutput("up", initLimit)
		if state := run.booted(); state != "running" {
			t.Errorf("systemd is %s\n%s", state, run.Exec("systemctl", "--failed").Stdout)
		}
		run.stop()
	})
}

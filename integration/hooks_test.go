package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// hook is an entry of the options prestart and poststop.
type hook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout float64  `json:"timeout,omitempty"`
	User    string   `json:"user,omitempty"`
}

// withHookOption sets one of the two options.
func withHookOption(t testing.TB, option string, list ...hook) taskOption {
	t.Helper()
	value, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return withRich(option, string(value))
}

// hookInits are the kinds of pid 1 that hooks differ for.
var hookInits = []variant{
	systemdBookworm,
	dumbInit,
	plain,
	{"busybox", imageInitAlpine, "sbin-init"},
}

// script is a shell script as a hook.
func script(lines ...string) hook {
	return hook{Path: "/bin/sh", Args: []string{"sh", "-ec", strings.Join(lines, "\n")}}
}

// notes is a folder of the host that a container has as /notes.
type notes struct {
	t   testing.TB
	dir string
}

func newNotes(t testing.TB) notes { return notes{t, t.TempDir()} }

func (n notes) mount() taskOption { return withBind(n.dir, "/notes", "rbind", "rw") }

// read returns a file's text, empty if there is none.
func (n notes) read(name string) string {
	content, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	return string(content)
}

func (n notes) want(name, want string) {
	n.t.Helper()
	if got := n.read(name); got != want {
		n.t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

// A prestart hook is done before the command runs, and a poststop hook knows how that ended.
func TestHooks(t *testing.T) {
	t.Parallel()
	forEach(t, hookInits, func(t *testing.T, v variant) {
		n := newNotes(t)
		report := `echo "$RICH_HOOK $RICH_CONTAINER $RICH_EXIT_CODE $RICH_EXIT_SIGNAL $RICH_EXIT_REASON" >>/notes/log`
		run := startTask(t, v.image, v.with(n.mount(),
			withHookOption(t, "prestart", script(`echo prestart >>/notes/log`), script(`echo second $1 "$FOO" $(id -u) $(pwd) >>/notes/log`)),
			withHookOption(t, "poststop", script(report), script(`echo last >>/notes/log`)),
			withEnv("FOO=a b"),
			withArgs("sh", "-c", "echo cmd >>/notes/log; exit 7"))...)
		if code := run.Wait(runLimit); code != 7 {
			t.Errorf("exit status %d, want 7", code)
		}
		run.Delete()
		n.want("log", fmt.Sprintf("prestart\nsecond a b 0 /\ncmd\npoststop %s 7  exit\nlast\n", run.ID))
	})
}

// What hooks are run as: root with all that the container may have, or the user they name with nothing of it.
func TestHookProcess(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
		n := newNotes(t)
		report := func(name string) []hook {
			as := hook{Path: "/bin/sh", Args: []string{"sh", "-c", "/probe report >/notes/" + name + "-user"}, User: "1234:1235"}
			return []hook{script("/probe report >/notes/" + name + "-root"), as}
		}
		if err := os.Chmod(n.dir, 0o777); err != nil {
			t.Fatal(err)
		}
		run := startTask(t, v.image, v.with(n.mount(), withProbe(), withUser(33, 33),
			withHookOption(t, "prestart", report("prestart")...), withHookOption(t, "poststop", report("poststop")...),
			withProcess(func(p *specs.Process) { p.Cwd = "/tmp" }),
			withArgs("sh", "-c", "/probe report >/notes/cmd; sleep 0.2"))...)
		run.Wait(runLimit)
		run.Delete()
		cmd := parseReport(t, n.read("cmd"))
		for name, user := range map[string][2]uint32{"root": {0, 0}, "user": {1234, 1235}} {
			for _, option := range []string{"prestart", "poststop"} {
				got := parseReport(t, n.read(option+"-"+name))
				if got.UID != user[0] || got.EUID != user[0] || got.GID != user[1] || got.EGID != user[1] || len(got.Groups) != 0 {
					t.Errorf("%s %s: uid %d gid %d groups %v", option, name, got.UID, got.GID, got.Groups)
				}
				want := "0000000000000000"
				if name == "root" {
					want = got.CapBounding
				}
				if got.CapEffective != want || got.CapPermitted != want || got.CapBounding != cmd.CapBounding || got.CapInheritable != "0000000000000000" {
					t.Errorf("%s %s: capabilities %s of %s", option, name, got.CapEffective, got.CapBounding)
				}
				if string(got.Cwd) != "/" || got.NoNewPrivs != cmd.NoNewPrivs || got.Seccomp != cmd.Seccomp {
					t.Errorf("%s %s: cwd %s, no_new_privs %s, seccomp %s", option, name, got.Cwd, got.NoNewPrivs, got.Seccomp)
				}
				same := []string{"net", "user", "uts", "ipc", "mnt"}
				if option == "poststop" && v == dumbInit {
					same = same[:2] // in a container of its own
				}
				for _, ns := range same {
					if string(got.Namespaces[ns]) != string(cmd.Namespaces[ns]) {
						t.Errorf("%s %s: %s namespace %s, the command's is %s", option, name, ns, got.Namespaces[ns], cmd.Namespaces[ns])
					}
				}
			}
		}
	})
}

// A user namespace, with a network of its own, is the poststop hooks' as well.
func TestHookUserNamespace(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
		n := newNotes(t)
		if err := os.Chown(n.dir, usernsRoot, usernsRoot); err != nil {
			t.Fatal(err)
		}
		look := script(`echo "$RICH_HOOK $(readlink /proc/self/ns/net) $(readlink /proc/self/ns/user) $(cat /proc/self/uid_map | tr -s ' ')" >>/notes/log`)
		run := startTask(t, v.image, v.with(n.mount(), withUserNamespace(),
			withHookOption(t, "prestart", look), withHookOption(t, "poststop", look), withArgs("true"))...)
		if code := run.Wait(runLimit); code != 0 {
			t.Errorf("exit status %d", code)
		}
		run.Delete()
		lines := strings.Split(strings.TrimSpace(n.read("log")), "\n")
		if len(lines) != 2 || strings.TrimPrefix(lines[0], "prestart") != strings.TrimPrefix(lines[1], "poststop") ||
			!strings.HasSuffix(lines[0], fmt.Sprintf(" 0 %d 65536", usernsRoot)) {
			t.Errorf("got %q", lines)
		}
	})
}

// A prestart hook sets up what the command needs of the network.
func TestHookRoute(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit, {"none", imageBusybox, "none"}}, func(t *testing.T, v variant) {
		got := runTask(t, v.image, runLimit, v.with(
			withSpec(oci.WithAddedCapabilities([]string{"CAP_NET_ADMIN"})),
			withHookOption(t, "prestart", script("ip link set lo up", "ip route add 192.0.2.0/24 dev lo")),
			withArgs("sh", "-c", "ip route; exec cat /proc/self/status | grep CapEff"))...)
		if got.Code != 0 || !strings.Contains(got.Stdout, "192.0.2.0/24 dev lo") {
			t.Errorf("got %+v", got)
		}
	})
}

// service is an HTTP server on the host's loopback, for containers on the host's network.
func service(t *testing.T, handler http.HandlerFunc) (port string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL[strings.LastIndexByte(server.URL, ':')+1:]
}

func withHostNetwork() taskOption { return withSpec(oci.WithHostNamespace(specs.NetworkNamespace)) }

// A prestart hook fetches a certificate before the command reads it.
func TestHookCertificate(t *testing.T) {
	t.Parallel()
	port := service(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "certificate for %s\n", r.URL.Query().Get("for"))
	})
	forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
		fetch := hook{
			Path: "/opt/fetch", Args: []string{"fetch", port}, Env: []string{"CN=app.example"}, Timeout: 20,
		}
		got := runTask(t, v.image, runLimit, v.with(withHostNetwork(),
			withFile("/opt/fetch", `#!/bin/bash -e
exec 3<>/dev/tcp/127.0.0.1/$1
printf 'GET /?for=%s HTTP/1.0\r\n\r\n' "$CN" >&3
sed '1,/^\r$/d' <&3 >/etc/app.pem
`, 0o755),
			withHookOption(t, "prestart", fetch), withArgs("cat", "/etc/app.pem"))...)
		if want := (result{Stdout: "certificate for app.example\n"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// A poststop hook tells a server of the crash, and another one clears a folder.
func TestHookReport(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit}, func(t *testing.T, v variant) {
		var posted output
		port := service(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(&posted, r.Body) })
		n := newNotes(t)
		run, log := watch(t, v.image, v.with(withHostNetwork(), n.mount(),
			withHookOption(t, "poststop", hook{Path: "/bin/bash", Args: []string{"bash", "-ec", `
body="$RICH_CONTAINER $RICH_EXIT_CODE $RICH_EXIT_SIGNAL $RICH_EXIT_REASON $RICH_DURATION"
exec 3<>/dev/tcp/127.0.0.1/` + port + `
printf 'POST / HTTP/1.0\r\nContent-Length: %s\r\n\r\n%s' ${#body} "$body" >&3
cat <&3 >/dev/null`}}, script("rm -r /notes/data")),
			withArgs("sh", "-c", "mkdir -p /notes/data/x; sleep 1.1; kill -SEGV $$"))...)
		if code := run.Wait(runLimit); code != 139 {
			t.Errorf("exit status %d", code)
		}
		run.Delete()
		var seconds float64
		var id, code, signal, reason string
		if _, err := fmt.Sscan(posted.String(), &id, &code, &signal, &reason, &seconds); err != nil ||
			id != run.ID || code != "139" || signal != "SIGSEGV" || reason != "signal" || seconds < 1.1 {
			t.Errorf("posted: %q, %v", posted.String(), err)
		}
		if _, err := os.Stat(n.dir + "/data"); !os.IsNotExist(err) {
			t.Errorf("the folder: %v", err)
		}
		crash := private.LogTail("the command crashed", 1000)
		for _, field := range []string{"container=" + run.ID, "code=139", "signal=SIGSEGV", "reason=signal", "level=warning"} {
			if !strings.Contains(crash, field) {
				t.Errorf("the log does not say %s:\n%s", field, crash)
			}
		}
		if v == systemdBookworm {
			log.WaitCrash("rich-app", 139, runLimit)
		}
	})
}

// badHooks are those that fail, and what is said of them.
var badHooks = []struct {
	name  string
	hook  hook
	words []string
	opts  []taskOption
}{
	{"exit 7", script("echo out; echo why >&2; echo and what >&2; exit 7"), []string{"/bin/sh", "exit status 7", `"why\nand what"`}, nil},
	{"signal", script("kill -SEGV $$"), []string{"/bin/sh", "killed by SIGSEGV"}, nil},
	{"hangs", hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo waiting >&2; sleep 3600; true"}, Timeout: 5}, []string{"/bin/sh", "not ended after 5s", "killed", `"waiting"`}, nil},
	{"ignores TERM", hook{Path: "/bin/sh", Args: []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}, Timeout: 1}, []string{"not ended after 1s"}, nil},
	{"missing", hook{Path: "/opt/hook"}, []string{"/opt/hook", "no such file in the container"}, nil},
	{"folder", hook{Path: "/etc"}, []string{"/etc", "not a regular file"}, nil},
	{"not executable", hook{Path: "/opt/hook"}, []string{"/opt/hook", "not executable", "0644", "chmod +x"}, []taskOption{withFile("/opt/hook", "#!/bin/sh\n", 0o644)}},
	{"no interpreter line", hook{Path: "/opt/hook"}, []string{"/opt/hook", "no interpreter line", "#!/bin/sh"}, []taskOption{withFile("/opt/hook", "echo hello\n", 0o755)}},
	{"empty", hook{Path: "/opt/hook"}, []string{"/opt/hook", "empty"}, []taskOption{withFile("/opt/hook", "", 0o755)}},
	{"wrong interpreter", hook{Path: "/opt/hook"}, []string{"/opt/hook", `interpreter "/bin/no-shell"`, "no such file"}, []taskOption{withFile("/opt/hook", "#!/bin/no-shell -e\n", 0o755)}},
	{"CRLF", hook{Path: "/opt/hook"}, []string{"/opt/hook", "CRLF"}, []taskOption{withFile("/opt/hook", "#!/bin/sh\r\necho hello\r\n", 0o755)}},
	{"byte order mark", hook{Path: "/opt/hook"}, []string{"/opt/hook", "byte order mark"}, []taskOption{withFile("/opt/hook", "\xef\xbb\xbf#!/bin/sh\necho hello\n", 0o755)}},
	{"links out", hook{Path: "/opt/hook"}, []string{"/opt/hook", "no such file in the container"}, []taskOption{withLink("/opt/hook", "../../../../../../../"+buildPath("bin/dumb-init"))}},
}

// A prestart hook that fails keeps the command from being started, and says why.
func TestB26BadHooks(t *testing.T) {
	t.Parallel()
	for _, c := range badHooks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			forEach(t, []variant{systemdBookworm, plain}, func(t *testing.T, v variant) {
				n := newNotes(t)
				opts := append(v.with(n.mount(),
					withHookOption(t, "prestart", script("true"), c.hook, script("touch /notes/later")),
					withHookOption(t, "poststop", c.hook, script(`echo "$RICH_EXIT_CODE $RICH_EXIT_REASON $RICH_DURATION" >>/notes/log`)),
					withArgs("touch", "/notes/cmd")), c.opts...)
				run := newTask(t, v.image, opts...)
				ctx, cancel := private.within(callLimit)
				defer cancel()
				err := run.Task.Start(ctx)
				if code := run.Wait(runLimit); code != 125 {
					t.Errorf("exit status %d", code)
				}
				if !drained(run.Task.IO()) {
					t.Error("the output is not closed")
				}
				said := fmt.Sprint(err)
				if v == systemdBookworm {
					if err != nil {
						t.Errorf("start: %v", err)
					}
					said = run.Stderr.String()
					if !strings.HasPrefix(said, "rich: prestart hook ") || strings.Count(said, "\n") != 1 || !strings.HasSuffix(said, "\n") {
						t.Errorf("stderr is %q", said)
					}
				}
				for _, word := range append(c.words, "prestart hook") {
					if !strings.Contains(said, word) {
						t.Errorf("%q does not say %q", said, word)
					}
				}
				logged := private.LogTail(run.ID, 200)
				words := append(c.words, "poststop hook")
				if c.name == "signal" && v != systemdBookworm {
					words = nil // pid 1 of a container of its own, which a signal does not end
				}
				for _, word := range words {
					word = strings.Trim(fmt.Sprintf("%q", word), `"`)
					if !strings.Contains(logged, word) && !strings.Contains(logged, strings.ReplaceAll(word, `\`, `\\\`)) {
						t.Errorf("the log does not say %q of the poststop hook:\n%s", word, logged)
					}
				}
				run.Delete()
				n.want("later", "")
				if _, err := os.Stat(n.dir + "/cmd"); err == nil {
					t.Error("the command was started")
				}
				n.want("log", "125 prestart-failed 0.000\n")
			})
		})
	}
}

// With a terminal there is no stderr to say it on.
func TestHookTerminal(t *testing.T) {
	t.Parallel()
	got := runTask(t, imageBookworm, runLimit, withInit("systemd"), withTerminal(), withRich("prestart", "/bin/false"), withArgs("true"))
	if got.Code != 125 || got.Stdout != "rich: prestart hook /bin/false: exit status 1\r\n" {
		t.Errorf("got %+v", got)
	}
}

// What a hook leaves running with its output open does not hold it up.
func TestB26HookDaemon(t *testing.T) {
	t.Parallel()
	forEach(t, []variant{systemdBookworm, dumbInit, plain}, func(t *testing.T, v variant) {
		n := newNotes(t)
		daemon := hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 3600 & echo $RICH_HOOK >>/notes/log"}, Timeout: 600}
		relative := hook{Path: "/opt/hook"}
		got := runTask(t, v.image, runLimit, v.with(n.mount(), withFile("/opt/hook", "#! bin/sh\necho relative >>/notes/log", 0o755),
			withHookOption(t, "prestart", daemon, relative), withHookOption(t, "poststop", daemon),
			withArgs("sh", "-c", "echo cmd >>/notes/log"))...)
		if want := (result{}); got != want {
			t.Errorf("got %+v", got)
		}
		n.want("log", "prestart\nrelative\ncmd\npoststop\n")
	})
}

// The options are checked before anything is made.
func TestHookOptions(t *testing.T) {
	for name, c := range map[string]struct {
		option, value string
		words         []string
	}{
		"relative": {"prestart", "opt/hook", []string{"rich.containerd.io/prestart", `"opt/hook"`, "absolute path"}},
		"key":      {"poststop", `[{"path":"/h","argv":["h"]}]`, []string{"rich.containerd.io/poststop", `"argv"`, `"args"`}},
		"timeout":  {"poststop", `[{"path":"/h","timeout":9999}]`, []string{"rich.containerd.io/poststop", "timeout", "9999", "1 to 600"}},
		"default":  {"hook-timeout", "1h", []string{"rich.containerd.io/hook-timeout", `"1h"`, "1s to 10m"}},
		"host":     {"host-hooks", "yes", []string{"rich.containerd.io/host-hooks", "only by: host file"}},
	} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBookworm, withRich(c.option, c.value))
			if err == nil {
				t.Fatal("it was created")
			}
			for _, word := range c.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			compare()
		})
	}
}

// The pause container of a pod has the pod's annotations, and no programs.
func TestB22HooksOfSandbox(t *testing.T) {
	t.Parallel()
	got := runTask(t, imageScratch, runLimit, withAnnotation("io.kubernetes.cri.container-type", "sandbox"),
		withRich("prestart", "/no/such/hook"), withRich("poststop", "/no/such/hook"), withArgs("/hello", "exit", "3"))
	if got.Code != 3 || got.Stderr != "" {
		t.Errorf("got %+v", got)
	}
}

package config

import (
	"cmp"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const hostExample = `# of a host
root-init = "never"
halt-timeout = "20s"
services = ["rsyslog", "cron.service"]
lock = ["root-init", "services"]

[choices]
init = ["systemd", "dumb-init"]
halt-timeout = ["30s", "1m"]
mask = ["ssh", "apt-daily.timer"]
`

func TestParseHost(t *testing.T) {
	host, err := ParseHost([]byte(hostExample))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Resolve(Sources{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.RootInit, want.HaltTimeout = RootInitNever, 20*time.Second
	want.RootInitSource = HostFile + ": line 2: root-init"
	want.Services, want.ServicesSource = []string{"rsyslog", "cron"}, HostFile+": line 4: services"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Without a word of the host's administrator, a pod's author gets nothing as root
// in a container whose user is not.
func TestT9RootInit(t *testing.T) {
	for _, tc := range []struct {
		name       string
		pod        bool
		host       string // value in the host's file
		handler    string
		annotation string
		own        string // annotation for the container alone
		want       string // empty for an error
	}{
		{"no pod", false, "", "", "", "", RootInitExplicit},
		{"no pod, raised", false, "never", "", "always", "", RootInitAlways},
		{"pod", true, "", "", "", "", RootInitNever},
		{"pod, lowered to what it is", true, "", "", "never", "", RootInitNever},
		{"pod, raised", true, "", "", "explicit", "", ""},
		{"pod, raised to the most", true, "", "", "always", "", ""},
		{"pod, raised for one container", true, "", "", "", "explicit", ""},
		{"pod, allowed", true, "explicit", "", "", "", RootInitExplicit},
		{"pod, allowed by the handler", true, "", "always", "", "", RootInitAlways},
		{"pod, allowed and lowered", true, "always", "", "never", "", RootInitNever},
		{"pod, allowed and lowered less for one container", true, "always", "", "never", "explicit", RootInitExplicit},
		{"pod, raised above what is allowed", true, "explicit", "", "always", "", ""},
		{"pod, the handler lowers", true, "always", "never", "explicit", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := Sources{InPod: tc.pod, Container: "app", Annotations: map[string]string{}}
			if tc.host != "" {
				src.Host.Options = Values{"root-init": Text(tc.host)}
			}
			if tc.handler != "" {
				src.Runtime = Values{"root-init": Text(tc.handler)}
			}
			if tc.annotation != "" {
				src.Annotations[Prefix+"root-init"] = tc.annotation
			}
			if tc.own != "" {
				src.Annotations[Prefix+"app.root-init"] = tc.own
			}
			got, err := Resolve(src)
			if tc.want != "" {
				if err != nil || got.RootInit != tc.want {
					t.Errorf("got %q, %v; want %q", got.RootInit, err, tc.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("got %q", got.RootInit)
			}
			for _, word := range []string{"annotation " + Prefix, "root-init", "value \"" + cmp.Or(tc.annotation, tc.own) + "\"", "administrator", HostFile} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

// Each mistake is told with its line, and what may have been meant.
func TestParseHostErrors(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"syntax", "init = \"systemd\"\nrun-size", []string{"line 2"}},
		{"unknown option", "\ninti = \"systemd\"", []string{"line 2", `"inti"`, `"init"`}},
		{"unknown key", "locks = [\"init\"]", []string{"line 1", `"locks"`, `"lock"`}},
		{"unknown table", "[choice]\ninit = []", []string{"line 1", `"choice"`, `"choices"`}},
		{"bad value", "# first\nrun-size = \"lots\"", []string{"line 2", "run-size", `"lots"`, "128m"}},
		{"array for one value", "init = [\"systemd\"]", []string{"line 1", "init", "no array"}},
		{"table for a value", "[init]\nx = 1", []string{"line 1", "init", "want a string"}},
		{"float", "run-size = 1.5", []string{"line 1", "run-size", "want a string"}},
		{"entry with a comma", "mask = [\"a,b\"]", []string{"line 1", "mask", `"a,b"`, "without spaces and commas"}},
		{"entry of a wrong type", "mask = [[\"a\"]]", []string{"line 1", "mask", "entry 1"}},
		{"bad service", "services = [\"../cron\"]", []string{"line 1", `"../cron"`, "want a name"}},
		{"service of the runtime", "services = \"rich-app\"", []string{"line 1", `"rich-app"`, "the runtime's own"}},
		{"too many", "mask = \"" + manyNames(65) + "\"", []string{"line 1", "mask", "at most 64"}},
		{"lock is no array", "lock = \"init\"", []string{"line 1", "lock", "array"}},
		{"unknown lock", "lock = [\n  \"root_init\",\n]", []string{"line 1", "lock", `"root_init"`, `"root-init"`}},
		{"lock of a wrong type", "lock = [{}]", []string{"line 1", "lock", "entry 1"}},
		{"choices is no table", "choices = [\"init\"]", []string{"line 1", "choices", "table"}},
		{"unknown choice", "[choices]\n\nservice = [\"cron\"]", []string{"line 3", "choices", `"service"`, `"services"`}},
		{"bad choice", "[choices]\ninit = [\"systemd\", \"upstart\"]", []string{"line 2", "choices", "init", `"upstart"`, "want one of"}},
		{"choice is no array", "[choices]\nhalt-timeout = \"20s\"", []string{"line 2", "halt-timeout", "array", "before the table"}},
		{"lock and choice", "lock = [\"init\"]\n[choices]\ninit = []", []string{"line 3", `"init"`, "lock", "choices", "remove"}},
		{"dotted choice", "choices.init = [\"no\"]", []string{"line 1", "choices", `"no"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseHost([]byte(tc.text))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func manyNames(n int) string {
	var names []string
	for i := range n {
		names = append(names, "s"+strings.Repeat("x", i))
	}
	return strings.Join(names, " ")
}

// Locks and choices hold for all that is not the host's file.
func TestHostLimits(t *testing.T) {
	annotation := func(name, value string) Sources {
		return Sources{Annotations: map[string]string{Prefix + name: value}}
	}
	const rest = "halt-timeout = '20s'\nservices = ['cron']\nlock = ['all']\n[choices]\nmask = ['ssh']"
	for _, tc := range []struct {
		name, host string
		src        Sources
		want       []string // of the error; nil if it is accepted
	}{
		{"not limited", hostExample, annotation("stop-signal", "QUIT"), nil},
		{"locked", hostExample, annotation("root-init", "always"), []string{"annotation rich.containerd.io/root-init", "locked", HostFile, "remove"}},
		{"locked for one container", hostExample, Sources{Container: "app", Annotations: map[string]string{Prefix + "app.root-init": "explicit"}}, []string{"rich.containerd.io/app.root-init", "locked"}},
		{"locked for a handler", hostExample, Sources{Runtime: Values{"root-init": Text("always")}}, []string{"runtime option root-init", "locked"}},
		{"locked list", hostExample, annotation("services", "rsyslog"), []string{"services", "locked"}},
		{"locked list emptied", hostExample, annotation("services", ""), []string{"services", "locked"}},
		{"set to what is locked", hostExample, annotation("root-init", "never"), nil},
		{"list set to what is locked", hostExample, annotation("services", "rsyslog.service cron"), nil},
		{"bad value for what is locked", hostExample, annotation("root-init", "nevre"), []string{"rich.containerd.io/root-init", `"nevre"`, `"never"`}},
		{"locked default", "lock = ['run-size']", annotation("run-size", "64m"), []string{"run-size", "locked"}},
		{"a choice", hostExample, annotation("init", "systemd"), nil},
		{"no choice", hostExample, annotation("init", "none"), []string{"annotation rich.containerd.io/init", `"none"`, HostFile, "systemd, dumb-init"}},
		{"no choice for Pouch", hostExample, Sources{Env: []string{"rich_mode=true", "rich_mode_launch_manner=sbin-init"}}, []string{"rich_mode_launch_manner", `"sbin-init"`, "systemd, dumb-init"}},
		{"no choice for a handler", hostExample, Sources{Runtime: Values{"init": Text("none")}}, []string{"runtime option init", `"none"`}},
		{"the host's own value is always one", hostExample, annotation("halt-timeout", "20s"), nil},
		{"a choice written in another way", hostExample, annotation("halt-timeout", "0m30s"), nil},
		{"between the choices", hostExample, annotation("halt-timeout", "31s"), []string{"halt-timeout", `"31s"`, "30s, 1m"}},
		{"choices of a list", hostExample, annotation("mask", "apt-daily.timer,ssh.service"), nil},
		{"one entry is no choice", hostExample, annotation("mask", "ssh cron"), []string{"mask", `"cron"`, "ssh, apt-daily.timer"}},
		{"an empty list", hostExample, annotation("mask", " "), nil},
		{"nothing to choose", "[choices]\ninit = []", annotation("init", "systemd"), []string{"init", "nothing"}},
		{"all locked", rest, annotation("halt-timeout", "30s"), []string{"halt-timeout", "locked"}},
		{"all locked, Pouch", rest, Sources{Env: []string{"rich_mode=true"}}, []string{"rich_mode", "locked"}},
		{"all locked but the choices", rest, annotation("mask", "ssh"), nil},
		{"all locked, not a choice", rest, annotation("mask", "cron"), []string{"mask", `"cron"`, "ssh"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host, err := ParseHost([]byte(tc.host))
			if err != nil {
				t.Fatal(err)
			}
			tc.src.Host = host
			_, err = Resolve(tc.src)
			if tc.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestWhere(t *testing.T) {
	opt := find("run-size")
	defer func(where Place) { opt.Where = where }(opt.Where)
	opt.Where = ByHost
	for _, src := range []Sources{
		{Annotations: map[string]string{Prefix + "run-size": "1m"}},
		{Runtime: Values{"run-size": Text("1m")}},
	} {
		if _, err := Resolve(src); err == nil || !strings.Contains(err.Error(), "only by: host file") {
			t.Errorf("%+v: %v", src, err)
		}
	}
	if _, err := Resolve(Sources{Host: Host{Options: Values{"run-size": Text("1m")}}}); err != nil {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if host, err := Load(filepath.Join(dir, "none")); err != nil || !reflect.DeepEqual(host, Host{}) {
		t.Errorf("no file: %+v, %v", host, err)
	}
	name := filepath.Join(dir, "rich.toml")
	for _, tc := range []struct{ content, want string }{
		{"\ninit = 'upstart'", name + ": line 2: init: value \"upstart\""},
		{strings.Repeat("#", maxFile) + "\n", "larger than"},
	} {
		if err := os.WriteFile(name, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add(hostExample)
	f.Add("choices = {init = ['none']}")
	f.Add("[[choices]]\ninit = []")
	f.Add("[choices.init]\nx = 1")
	f.Add("'lock' = []\n\"init\" = '''\nnone'''")
	f.Fuzz(func(t *testing.T, text string) {
		host, err := ParseHost([]byte(text))
		if err != nil {
			return
		}
		for name := range host.Options {
			if find(name) == nil {
				t.Errorf("%q: unknown option %q", text, name)
			}
		}
		if _, err := Resolve(Sources{Host: host}); err != nil {
			t.Errorf("%q was parsed, but: %v", text, err)
		}
	})
}

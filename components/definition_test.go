package components

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := Parse("node-exporter", []byte(`
directory = "/usr/lib/agents/node-exporter"
exec = ["bin/node-exporter", "--web.listen-address=:9100", ""]
env = { LEVEL = "info", A = "x=y" }
user = "65534:100"
start = "before"
ready = "tcp:9100"
ready-timeout = "10s"
required = true
restart = "on-failure"
restart-delay = "2s"
restart-max-delay = "2m"
stop-timeout = "0s"
memory = "64m"
cpus = 0.25
log = "container"
log-size = "1m"
`))
	want := &Definition{
		Name: "node-exporter", Directory: "/usr/lib/agents/node-exporter",
		Exec: []string{"bin/node-exporter", "--web.listen-address=:9100", ""},
		Env:  []string{"A=x=y", "LEVEL=info"}, User: User{UID: 65534, GID: 100},
		Before: true, Ready: Ready{Port: 9100}, ReadyTimeout: 10 * time.Second, Required: true,
		Restart: RestartOnFailure, RestartDelay: 2 * time.Second, RestartMaxDelay: 2 * time.Minute,
		Memory: 64 << 20, CPU: 25, Log: LogContainer, LogSize: 1 << 20,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}

	got, err = Parse("a", []byte(`exec = ["/usr/sbin/cron"]`))
	want = &Definition{
		Name: "a", Exec: []string{"/usr/sbin/cron"}, ReadyTimeout: 30 * time.Second, StopTimeout: 5 * time.Second,
		Restart: RestartAlways, RestartDelay: time.Second, RestartMaxDelay: time.Minute, Log: LogFile, LogSize: 10 << 20,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("defaults: got %+v, %v, want %+v", got, err, want)
	}

	got, err = Parse("a", []byte("directory = \"/d\"\nexec = [\"x\"]\nstart = \"before\"\nready = [\"check\", \"-q\"]\nuser = \"command\"\ncpus = 2\n"))
	if err != nil || !reflect.DeepEqual(got.Ready, Ready{Exec: []string{"check", "-q"}}) || got.User != (User{Command: true}) || got.CPU != 200 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Every bad input is answered with the key, the value and what is accepted.
func TestParseErrors(t *testing.T) {
	const good = "directory = \"/d\"\nexec = [\"x\"]\n"
	for text, want := range map[string][]string{
		"exec = ":                                          {"toml"},
		"":                                                 {"exec", "missing"},
		good + `memroy = "1m"`:                             {`unknown key "memroy"`, `"memory"`},
		good + `memory = "1m"`:                             {"memory", `"1m"`, "from 4m to 1024g"},
		good + `memory = true`:                             {"memory", `"true"`},
		good + `cpus = 0`:                                  {"cpus", `"0"`, "0.25"},
		good + `cpus = 0.001`:                              {"cpus", "0.001"},
		good + `cpus = nan`:                                {"cpus", "NaN"},
		good + `cpus = "1"`:                                {"cpus"},
		good + `user = "nobody"`:                           {"user", `"nobody"`, "numbers", "command"},
		good + `user = 0`:                                  {"user", "want a string"},
		good + `user = "-1"`:                               {"user"},
		good + `restart = "allways"`:                       {"restart", `"allways"`, `nearest is "always"`},
		good + `restart-delay = "5"`:                       {"restart-delay", `"5"`, "1s"},
		good + `restart-delay = "2m"`:                      {"restart-max-delay", "1m0s", "restart-delay"},
		good + `env = { "A=B" = "c" }`:                     {"env", `"A=B"`},
		good + `env = { A = 1 }`:                           {"env", `"A"`, "string"},
		good + `env = ["A=1"]`:                             {"env", "table"},
		good + `env = { A = "\u0000" }`:                    {"env", `"A"`},
		good + `required = true`:                           {"required", "start", `"before"`},
		good + `ready = "tcp:1"`:                           {"ready", "start", `"before"`},
		good + "start=\"before\"\nready = \"tcp:70000\"":   {"ready", `"tcp:70000"`, "65535"},
		good + "start=\"before\"\nready = \"http\"":        {"ready", `"http"`, "tcp:PORT"},
		good + "start=\"before\"\nready = [\"../x\"]":      {"ready", "../x"},
		good + "start=\"before\"\nrequired = \"yes\"":      {"required", `"yes"`, "true or false"},
		good + `log = "journal"`:                           {"log", `"journal"`, "syslog"},
		`exec = ["x"]`:                                     {"exec", `"x"`, "directory"},
		`exec = "x"`:                                       {"exec", "list"},
		`exec = []`:                                        {"exec", "list"},
		`exec = ["../x"]`:                                  {"exec", "../x"},
		`exec = ["a/../../x"]`:                             {"exec"},
		`exec = ["/"]`:                                     {"exec"},
		`exec = ["/x", 1]`:                                 {"exec"},
		`exec = ["/x", "\u0000"]`:                          {"exec"},
		"directory = \"d\"\nexec = [\"x\"]":                {"directory", `"d"`, "absolute"},
		"directory = \"/\"\nexec = [\"x\"]":                {"directory", `"/"`},
		"directory = \"/a/..\"\nexec=[\"x\"]":              {"directory", `"/a/.."`},
		good + `log = "` + strings.Repeat("x", 1000) + `"`: {"log", "…"},
	} {
		_, err := Parse("a", []byte(text))
		if err == nil {
			t.Errorf("%s: accepted", text)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", text, err, w)
			}
		}
		if len(err.Error()) > 600 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: not one line: %q", text, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "node-exporter": true, "0": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a/b": false, "..": false, "a b": false, "a\n": false,
		strings.Repeat("a", 33): false, "wait\x00": false,
	} {
		if got := CheckName(name) == nil; got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.toml": `exec = ["/x"]`, "large.toml": "#" + strings.Repeat("x", maxFile), "bad.toml": "what", "writable.toml": `exec = ["/x"]`,
		"no-component.txt": "", "Upper.toml": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "writable.toml"), 0o646); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.toml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if d, err := Load(dir, "good"); err != nil || d.Name != "good" {
		t.Errorf("got %+v, %v", d, err)
	}
	for name, want := range map[string]string{
		"large": "larger than", "bad": "bad.toml: ", "writable": "0646", "folder": "not a regular file",
		"none": "it offers bad, folder, good, large, writable", "../good": "letters",
	} {
		if _, err := Load(dir, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := Load(filepath.Join(dir, "missing"), "a"); err == nil || !strings.Contains(err.Error(), "it offers none") {
		t.Errorf("no folder: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "good"); err == nil || !strings.Contains(err.Error(), "0777") {
		t.Errorf("a folder that others may write: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a", "directory = \"/d\"\nexec = [\"x\"]\ncpus = 1e30\n")
	f.Add("b", "exec = [\"/x\"]\nready = [1]\nstart = \"before\"\nenv = { a = \"b\" }\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		d, err := Parse(name, []byte(text))
		if err != nil {
			return
		}
		if CheckName(d.Name) != nil || len(d.Exec) == 0 || strings.HasPrefix(d.Exec[0], "..") || d.CPU < 0 || d.Memory < 0 ||
			d.RestartDelay <= 0 || d.RestartMaxDelay < d.RestartDelay || d.Required && !d.Before {
			t.Errorf("%q gave %+v", text, d)
		}
	})
}

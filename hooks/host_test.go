package hooks

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// whenFile is a file with the given conditions.
func whenFile(when string) string {
	return `{"version":"1.0.0","hook":{"path":"/h"},"when":` + when + `,"stages":["poststop"]}`
}

func TestMatches(t *testing.T) {
	spec := &specs.Spec{
		Process:     &specs.Process{Args: []string{"/usr/bin/app", "init"}},
		Annotations: map[string]string{"com.example.department": "fluid-dynamics", "a": "b"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/etc/hosts", Type: "bind"},
			{Destination: "/data", Type: "none", Options: []string{"rbind", "ro"}},
		},
	}
	plain := &specs.Spec{Mounts: spec.Mounts[:2]}
	for when, want := range map[string][2]bool{
		`{"always":true}`:                                                     {true, true},
		`{"always":false}`:                                                    {false, false},
		`{"always":false,"hasBindMounts":true}`:                               {false, false},
		`{"hasBindMounts":true}`:                                              {true, false},
		`{"hasBindMounts":false}`:                                             {false, false},
		`{"commands":["^/bin/x$","/app$"]}`:                                   {true, false},
		`{"commands":["init"]}`:                                               {false, false},
		`{"annotations":{"^com\\.example\\.":"dyn"}}`:                         {true, false},
		`{"annotations":{"a":"^b$","department$":"^fluid"}}`:                  {true, false},
		`{"annotations":{"a":"b","^b$":""}}`:                                  {false, false},
		`{"annotations":{"^a$":"fluid"}}`:                                     {false, false},
		`{"always":true,"commands":["/sh$"]}`:                                 {false, false},
		`{"hasBindMounts":true,"commands":["/app$"],"annotations":{"a":"b"}}`: {true, false},
	} {
		h, err := ParseHost([]byte(whenFile(when)))
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		if got := [2]bool{h.Matches(spec), h.Matches(plain)}; got != want {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
}

func TestAdd(t *testing.T) {
	h, err := ParseHost([]byte(`{"version":"1.0.0","hook":{"path":"/h","args":["h","a"],"env":["A=1"],"timeout":3},
		"when":{"always":true},"stages":["prestart","createRuntime","createContainer","startContainer","poststart","poststop"]}`))
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Hooks{Poststop: []specs.Hook{{Path: "/first"}}}
	h.Add(spec)
	for name, list := range stages {
		got := *list(spec)
		last := got[len(got)-1]
		if last.Path != "/h" || last.Args[1] != "a" || last.Env[0] != "A=1" || *last.Timeout != 3 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if len(spec.Poststop) != 2 || spec.Poststop[0].Path != "/first" || len(stages) != 6 {
		t.Errorf("got %+v", spec)
	}
}

func TestHostErrors(t *testing.T) {
	for text, words := range map[string][]string{
		`x`:                               {"invalid character"},
		`null`:                            {"null", "object"},
		`[]`:                              {"array"},
		whenFile(`{"always":true}`) + "x": {"follows"},
		`{}`:                              {"version", "1.0.0"},
		`{"version":"0.1.0"}`:             {"version", `"0.1.0"`, "1.0.0"},
		`{"version":"1.0.0","when":{"always":true},"stages":["poststop"]}`:                                        {"hook", "missing"},
		`{"version":"1.0.0","hook":{"path":"/h"},"stages":["poststop"]}`:                                          {"when", "missing"},
		`{"version":"1.0.0","hook":{"path":"/h"},"when":{"always":true}}`:                                         {"stages", "missing", "createRuntime"},
		`{"version":"1.0.0","hook":{"path":"/h"},"when":{"always":true},"stage":["poststop"]}`:                    {`unknown key "stage"`, `"stages"`},
		`{"version":"1.0.0","hook":{"path":"/h"},"when":{"always":true},"stages":["post-stop"]}`:                  {"stages", `"post-stop"`, `nearest is "poststop"`},
		`{"version":"1.0.0","hook":{"path":"h"},"when":{"always":true},"stages":["poststop"]}`:                    {"hook.path", `"h"`, "absolute"},
		`{"version":"1.0.0","hook":{"path":"/h","timeout":0},"when":{"always":true},"stages":["poststop"]}`:       {"hook.timeout", "value 0"},
		`{"version":"1.0.0","hook":{"path":"/h","timeout":"1"},"when":{"always":true},"stages":["poststop"]}`:     {"hook: timeout", "string", "int"},
		`{"version":"1.0.0","hook":{"path":"/h","arguments":["x"]},"when":{"always":true},"stages":["poststop"]}`: {"hook", `unknown key "arguments"`, `"args"`},
		whenFile(`{}`):                        {"when", "empty"},
		whenFile(`{"annotation":{}}`):         {"when", `unknown key "annotation"`, `"annotations"`},
		whenFile(`{"always":"yes"}`):          {"when: always", "string", "bool"},
		whenFile(`{"commands":["("]}`):        {"when.commands", `"("`},
		whenFile(`{"annotations":{"(":"x"}}`): {"when.annotations", "key", `"("`},
		whenFile(`{"annotations":{"x":"("}}`): {"when.annotations", "value", `"("`},
	} {
		_, err := ParseHost([]byte(text))
		if err == nil {
			t.Errorf("%s: accepted", text)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", text, err, w)
			}
		}
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add([]byte(whenFile(`{"always":true,"commands":["x"],"annotations":{"a":"b"}}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseHost(data)
		if err != nil {
			return
		}
		h.Matches(&specs.Spec{})
		before := &specs.Hooks{}
		h.Add(before)
		if len(h.Stages) == 0 || h.Hook.Path == "" {
			t.Errorf("%q gave %+v", data, h)
		}
	})
}

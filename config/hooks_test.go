package config

import (
	"path"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseHooks(t *testing.T) {
	for value, want := range map[string][]Hook{
		"":                   nil,
		"[]":                 nil,
		"/opt/hook":          {{Path: "/opt/hook", Args: []string{"/opt/hook"}}},
		"/opt/../opt/./hook": {{Path: "/opt/hook", Args: []string{"/opt/hook"}}},
		`[{"path":"/a b"}]`:  {{Path: "/a b", Args: []string{"/a b"}}},
		`[{"path":"/h"}, {"path":"/i"}]`: {
			{Path: "/h", Args: []string{"/h"}},
			{Path: "/i", Args: []string{"/i"}},
		},
		`[{"path":"/h","args":["h","a b",""],"env":["A=1","B="],"timeout":5,"user":"1000"}]`: {
			{Path: "/h", Args: []string{"h", "a b", ""}, Env: []string{"A=1", "B="}, Timeout: 5 * time.Second, UID: 1000, user: "1000"},
		},
		`[{"path":"/h","timeout":1.5,"user":"1000:100"}]`: {
			{Path: "/h", Args: []string{"/h"}, Timeout: 1500 * time.Millisecond, UID: 1000, GID: 100, user: "1000:100"},
		},
	} {
		got, err := parseHooks(value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", value, got, err, want)
		}
	}
}

// Hooks of a container whose user is not root run as that user, or are refused.
func TestT9OwnHooks(t *testing.T) {
	for value, want := range map[string]bool{
		"/h": true, `[{"path":"/h","user":"1000"}]`: true, `[{"path":"/h","user":"1000:1001"}]`: true,
		`[{"path":"/h","user":"0"}]`: false, `[{"path":"/h","user":"0:1001"}]`: false, `[{"path":"/h","user":"1000:0"}]`: false, `[{"path":"/h","user":"1001"}]`: false,
		`[{"path":"/h"},{"path":"/h","user":"0"}]`: false,
	} {
		hooks, err := parseHooks(value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OwnHooks(hooks, "annotation x", 1000, 1001)
		switch {
		case want && err != nil:
			t.Errorf("%s: %v", value, err)
		case want:
			if h := got[0]; !h.Own || h.UID != 1000 || h.GID != 1001 || hooks[0].Own {
				t.Errorf("%s: got %+v from %+v", value, got, hooks)
			}
		case err == nil:
			t.Errorf("%s: got %+v", value, got)
		default:
			for _, word := range []string{"annotation x: hook ", "user: value", `"1000:1001"`, HostFile} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%s: %q does not say %q", value, err, word)
				}
			}
		}
	}
}

func TestHookErrors(t *testing.T) {
	for value, words := range map[string][]string{
		"opt/hook":                            {`"opt/hook"`, "absolute path", "/opt/hook"},
		"/opt/hook now":                       {"absolute path", `"args"`},
		"/opt/hook\x00":                       {"absolute path"},
		`{"path":"/h"}`:                       {"absolute path"},
		`["/h"]`:                              {"array of objects"},
		`[{"path":"/h"}] x`:                   {"array of objects"},
		`[{"path":"/h"}`:                      {"array of objects"},
		`[{"args":["h"]}]`:                    {"hook 1: path", `""`, "absolute path"},
		`[null]`:                              {"hook 1: path"},
		`[{"path":"/h"},{"path":"h"}]`:        {"hook 2: path", `"h"`, "absolute path"},
		`[{"path":7}]`:                        {"path", "7", "a string"},
		`[{"path":null}]`:                     {"path", "null", "a string"},
		`[{"path":"/h","arg":["h"]}]`:         {`unknown key "arg"`, `"args"`},
		`[{"path":"/h","args":[]}]`:           {"args", "empty"},
		`[{"path":"/h","args":"h"}]`:          {"args", `"h"`, "array of strings"},
		`[{"path":"/h","args":["\u0000"]}]`:   {"args", "NUL"},
		`[{"path":"/h","env":["A"]}]`:         {"env", `"A"`, "NAME=VALUE"},
		`[{"path":"/h","env":["=A"]}]`:        {"env", `"=A"`, "NAME=VALUE"},
		`[{"path":"/h","timeout":0}]`:         {"timeout", "value 0", "1 to 600"},
		`[{"path":"/h","timeout":-3}]`:        {"timeout", "value -3", "1 to 600"},
		`[{"path":"/h","timeout":601}]`:       {"timeout", "value 601", "1 to 600"},
		`[{"path":"/h","timeout":"5s"}]`:      {"timeout", `"5s"`, "number of seconds"},
		`[{"path":"/h","user":"www"}]`:        {"user", `"www"`, "UID:GID"},
		`[{"path":"/h","user":""}]`:           {"user", `""`, "UID:GID"},
		`[{"path":"/h","user":"1:"}]`:         {"user", `"1:"`, "UID:GID"},
		`[{"path":"/h","user":"4294967295"}]`: {"user", "UID:GID"},
		`[{"path":"/h","user":7}]`:            {"user", "7", "a string"},
	} {
		_, err := Resolve(Sources{Annotations: map[string]string{Prefix + "prestart": value}})
		if err == nil {
			t.Errorf("%s: accepted", value)
			continue
		}
		for _, w := range append(words, "rich.containerd.io/prestart") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", value, err, w)
			}
		}
	}
	if _, err := parseHooks("[" + strings.Repeat(`{"path":"/h"},`, maxHooks) + `{"path":"/h"}]`); err == nil {
		t.Error("too many hooks were accepted")
	}
}

// Only the host's file can let the host's hooks run.
func TestHostOnly(t *testing.T) {
	values := Values{"host-hooks": Text("yes")}
	if o, err := Resolve(Sources{Host: Host{Options: values}}); err != nil || !o.HostHooks {
		t.Errorf("host's file: %+v, %v", o, err)
	}
	for name, src := range map[string]Sources{
		"runtime option": {Runtime: values},
		"annotation":     {Annotations: map[string]string{Prefix + "host-hooks": "yes"}},
		"own annotation": {Container: "app", Annotations: map[string]string{Prefix + "app.host-hooks": "no"}},
	} {
		if _, err := Resolve(src); err == nil || !strings.Contains(err.Error(), "only by: host file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseHooks(f *testing.F) {
	f.Add("/opt/hook")
	f.Add(`[{"path":"/h","args":["h"],"env":["A=1"],"timeout":5,"user":"1:2"}]`)
	f.Fuzz(func(t *testing.T, value string) {
		list, err := parseHooks(value)
		if err != nil {
			return
		}
		for _, h := range list {
			if !path.IsAbs(h.Path) || len(h.Args) == 0 || h.Timeout != 0 && (h.Timeout < minHookTimeout || h.Timeout > maxHookTimeout) ||
				strings.ContainsRune(h.Path+strings.Join(h.Args, "")+strings.Join(h.Env, ""), 0) {
				t.Errorf("%q gave %+v", value, h)
			}
		}
	})
}

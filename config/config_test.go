package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestResolvePrecedence(t *testing.T) {
	for _, tc := range []struct {
		name string
		src  Sources
		want func(*Options)
	}{
		{"defaults", Sources{}, func(*Options) {}},
		{
			"host file",
			Sources{Host: Host{Options: Values{"init": Text("none"), "halt-timeout": Text("1m")}}},
			func(o *Options) {
				o.Init, o.InitSource, o.HaltTimeout = InitNone, HostFile+": init", time.Minute
			},
		},
		{
			"runtime options over host file",
			Sources{Host: Host{Options: Values{"init": Text("none")}}, Runtime: Values{"init": Text("systemd")}},
			func(o *Options) { o.Init, o.InitSource = InitSystemd, "runtime option init" },
		},
		{
			"Pouch's environment over runtime options",
			Sources{Runtime: Values{"init": Text("systemd")}, Env: []string{"A=1", "rich_mode=true"}},
			func(o *Options) { o.Init, o.InitSource = InitDumbInit, "environment variable rich_mode" },
		},
		{
			"Pouch's manner",
			Sources{Env: []string{"rich_mode= true ", "rich_mode_launch_manner=systemd"}},
			func(o *Options) { o.Init, o.InitSource = InitSystemd, "environment variable rich_mode_launch_manner" },
		},
		{
			"Pouch's manner without its mode",
			Sources{Env: []string{"rich_mode=yes", "rich_mode_launch_manner=systemd"}},
			func(*Options) {},
		},
		{
			"annotation over Pouch's environment",
			Sources{Env: []string{"rich_mode=true"}, Annotations: map[string]string{Prefix + "init": "none"}},
			func(o *Options) { o.Init, o.InitSource = InitNone, "annotation rich.containerd.io/init" },
		},
		{
			"annotation for this container over the pod's",
			Sources{
				Container:   "app",
				Annotations: map[string]string{Prefix + "init": "none", Prefix + "app.init": "systemd", Prefix + "side.init": "dumb-init"},
			},
			func(o *Options) { o.Init, o.InitSource = InitSystemd, "annotation rich.containerd.io/app.init" },
		},
		{
			"annotation for another container",
			Sources{Container: "app", Annotations: map[string]string{Prefix + "side.init": "none", "other/init": "x"}},
			func(*Options) {},
		},
		{
			"container's name with dots",
			Sources{Container: "a.b", Annotations: map[string]string{Prefix + "a.b.stop-signal": "SIGQUIT", Prefix + "b.stop-signal": "1"}},
			func(o *Options) { o.StopSignal = 3 },
		},
		{
			"components: annotation over the host's file, always beside them",
			Sources{
				Host:        Host{Options: Values{"components": Text("a,b"), "always-components": Text("audit")}},
				Annotations: map[string]string{Prefix + "components": " log , metrics "},
			},
			func(o *Options) {
				o.Components, o.ComponentsSource = []string{"log", "metrics"}, "annotation rich.containerd.io/components"
				o.AlwaysComponents, o.AlwaysComponentsSource = []string{"audit"}, HostFile+": always-components"
			},
		},
		{
			"components: none of the host's default",
			Sources{Host: Host{Options: Values{"components": Text("a")}}, Annotations: map[string]string{Prefix + "components": ""}},
			func(o *Options) { o.ComponentsSource = "annotation rich.containerd.io/components" },
		},
		{
			"sizes and signals",
			Sources{Annotations: map[string]string{Prefix + "run-size": "64m", Prefix + "stop-signal": "RTMIN+3"}},
			func(o *Options) { o.RunSize, o.StopSignal = 64<<20, 37 },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := Default()
			tc.want(&want)
			got, err := Resolve(tc.src)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// Every bad input is answered with the key, the value and what is accepted.
func TestResolveErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		src  Sources
		want []string
	}{
		{
			"unknown annotation",
			Sources{Annotations: map[string]string{Prefix + "inti": "systemd"}},
			[]string{"annotation rich.containerd.io/inti", `unknown option "inti"`, `"init"`},
		},
		{
			"unknown option of another container",
			Sources{Annotations: map[string]string{Prefix + "side.stopsignal": "9"}},
			[]string{"rich.containerd.io/side.stopsignal", `"stop-signal"`},
		},
		{
			"bad init",
			Sources{Annotations: map[string]string{Prefix + "init": "sytemd"}},
			[]string{"rich.containerd.io/init", `"sytemd"`, "want one of auto, systemd", `nearest is "systemd"`},
		},
		{
			"bad manner",
			Sources{Env: []string{"rich_mode=true", "rich_mode_launch_manner=upstart"}},
			[]string{"rich_mode_launch_manner", `"upstart"`, "want one of"},
		},
		{
			"the operator's option as an annotation",
			Sources{Annotations: map[string]string{Prefix + "always-components": "a"}},
			[]string{"rich.containerd.io/always-components", "cannot be set here", "handler, host file"},
		},
		{
			"bad duration",
			Sources{Host: Host{Options: Values{"halt-timeout": Text("10")}}},
			[]string{HostFile, "halt-timeout", `"10"`, "such as 30s"},
		},
		{
			"bad signal",
			Sources{Runtime: Values{"stop-signal": Text("SIGFOO")}},
			[]string{"runtime option stop-signal", `"SIGFOO"`, "such as SIGTERM"},
		},
		{
			"bad size",
			Sources{Host: Host{Options: Values{"run-size": Text("9999999999g")}}},
			[]string{"run-size", `"9999999999g"`, "such as 128m"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Resolve(tc.src)
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

func TestWithoutPouch(t *testing.T) {
	env := []string{"A=1", "rich_mode=true", "rich_mode_launch_manner=systemd", "rich_modes=kept"}
	got := strings.Join(WithoutPouch(env), " ")
	if got != "A=1 rich_modes=kept" || env[1] != "rich_mode=true" {
		t.Errorf("got %q, input now %q", got, env)
	}
}

// What the host file locks stays, and what comes out is within its bounds, whatever the sources say.
func FuzzResolve(f *testing.F) {
	f.Add("init", "systemd", "app", "", "")
	f.Add("app.halt-timeout", "30s", "app", "", "")
	f.Add("run-size", "-1k", "", "", "")
	f.Add("services", "cron, ssh rsyslog.service", "", "", "")
	f.Add("init", "none", "", "lock = ['all']\ninit = 'systemd'", "")
	f.Add("mask", "cron", "", "mask = ['ssh']\n[choices]\nmask = ['cron']\ninit = []", "dumb-init")
	f.Fuzz(func(t *testing.T, key, value, container, file, manner string) {
		host, err := ParseHost([]byte(file))
		if err != nil {
			return
		}
		src := Sources{
			Annotations: map[string]string{Prefix + key: value},
			Container:   container,
			Env:         []string{PouchMode + "=true", PouchManner + "=" + manner},
			Runtime:     Values{key: Text(value)},
			Host:        host,
		}
		alone, err := Resolve(Sources{Host: host})
		if err != nil {
			t.Fatalf("%q was parsed, but: %v", file, err)
		}
		o, err := Resolve(src)
		if err != nil {
			return
		}
		if o.HaltTimeout < time.Second || o.RunSize < 0 || o.StopSignal < 0 || o.StopSignal > 64 || len(o.Services) > maxEntries {
			t.Errorf("%q=%q gave %+v", key, value, o)
		}
		for _, name := range slices.Concat(o.Services, o.Mask) {
			if !serviceName().MatchString(name) {
				t.Errorf("%q=%q gave the service %q", key, value, name)
			}
		}
		o.InitSource, o.ServicesSource = alone.InitSource, alone.ServicesSource
		if slices.Contains(host.Lock, lockAll) && len(host.Choices) == 0 && !reflect.DeepEqual(o, alone) {
			t.Errorf("%q=%q changed what %q locks from %+v to %+v", key, value, file, alone, o)
		}
		if choices, ok := host.Choices["init"]; ok && o.Init != alone.Init && !slices.Contains(choices, o.Init) {
			t.Errorf("%q lets init be %q", file, o.Init)
		}
	})
}

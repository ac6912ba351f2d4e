package integration

import (
	"strings"
	"testing"
)

// The host's file limits what containers can choose.
func TestHostLimits(t *testing.T) {
	const file = "/etc/containerd/rich.toml"
	h := newHostFiles(t, map[string]string{file: `root-init = "never"
halt-timeout = "20s"
lock = ["root-init", "run-size"]

[choices]
init = ["systemd", "dumb-init"]
services = ["cron", "rsyslog"]
mask = []
`})
	for _, c := range []struct {
		name  string
		words []string // nil if it is created
		opts  []taskOption
	}{
		{"locked", []string{"rich.containerd.io/root-init", "locked by " + file}, []taskOption{withRich("root-init", "always")}},
		{"locked default", []string{"rich.containerd.io/run-size", "locked by " + file}, []taskOption{withRich("run-size", "1m")}},
		{"no choice", []string{"rich.containerd.io/init", `"none"`, file, "systemd, dumb-init"}, []taskOption{withInit("none")}},
		{"no choice of an image", []string{"rich_mode_launch_manner", `"sbin-init"`, file}, []taskOption{withEnv("rich_mode=true", "rich_mode_launch_manner=sbin-init")}},
		{"no choice of services", []string{"rich.containerd.io/services", `"ssh"`, file, "cron, rsyslog"}, []taskOption{withRich("services", "cron,ssh")}},
		{"nothing to choose", []string{"rich.containerd.io/mask", `"ssh"`, file, "nothing"}, []taskOption{withRich("mask", "ssh")}},
		{"a user's systemd", []string{"process.user.uid", "1234", "root-init"}, []taskOption{withInit("systemd"), withUser(1234, 1234)}},
		{"choices", nil, []taskOption{withInit("systemd"), withRich("services", "rsyslog.service"), withRich("root-init", "never"), withRich("halt-timeout", "1m")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare := snapshotHost(t)
			run, err := tryTask(t, imageBookworm, append(c.opts, withHost(h), withArgs("true"))...)
			if c.words == nil {
				if err != nil {
					t.Fatal(err)
				}
				run.Start()
				if code := run.Wait(runLimit); code != 0 {
					run.fatal("exit status %d", code)
				}
				run.Delete()
			} else {
				expectError(t, err, c.words)
			}
			compare()
		})
	}
	for name, c := range map[string]struct {
		content string
		words   []string
	}{
		"typing error in a lock":   {"\nlock = [\"root_init\"]\n", []string{file, "line 2", `"root_init"`, `"root-init"`}},
		"unknown key":              {"run_size = \"64m\"\n", []string{file, "line 1", `"run_size"`, `"run-size"`}},
		"bad value":                {"init = \"sytemd\"\n", []string{file, "line 1", `"sytemd"`, `"systemd"`}},
		"option below the choices": {"[choices]\nhalt-timeout = \"20s\"\n", []string{file, "line 2", "halt-timeout", "before the table"}},
	} {
		t.Run(name, func(t *testing.T) {
			compare := snapshotHost(t)
			_, err := tryTask(t, imageBookworm, withHostFile(t, file, c.content), withArgs("true"))
			expectError(t, err, c.words)
			compare()
		})
	}
}

// expectError fails the test unless create failed with these words.
func expectError(t *testing.T, err error, words []string) {
	t.Helper()
	if err == nil {
		t.Fatal("it was created")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

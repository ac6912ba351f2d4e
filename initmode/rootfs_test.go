package initmode

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// makeRootfs makes a root file system of the given files: a value that
// begins with "->" is a link, one that ends in "/" a directory, any other
// the content of an executable.
func makeRootfs(t testing.TB, files map[string]string) *Rootfs {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch target, link := strings.CutPrefix(content, "->"); {
		case link:
			err = os.Symlink(target, path)
		case content == "/":
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

const elf = "\x7fELF\x02\x01\x01"

var debianRootfs = map[string]string{
	"lib":                      "->usr/lib",
	"sbin":                     "->usr/sbin",
	"bin":                      "->usr/bin",
	"usr/sbin/init":            "->/lib/systemd/systemd",
	"usr/lib/systemd/systemd":  elf + " libsystemd-shared-252.so libsystemd-core-252.so",
	"usr/bin/sh":               elf,
	"run":                      "/",
	"var/run":                  "->/run",
	"etc/machine-id":           "",
	"usr/local/bin/server":     elf,
	"usr/bin/dumb-init":        elf,
	"usr/lib/systemd/old":      elf + " libsystemd-shared-229.so",
	"etc/alternatives/service": "->/usr/local/bin/server",
}

func TestResolve(t *testing.T) {
	r := makeRootfs(t, map[string]string{
		"lib":          "->usr/lib",
		"usr/lib/a":    "x",
		"abs":          "->/lib/a",
		"up":           "->../../etc/passwd",
		"usr/up":       "->../lib/a",
		"loop1":        "->loop2",
		"loop2":        "->loop1",
		"dangling":     "->/nowhere/at/all",
		"usr/lib/self": "->.",
	})
	for _, tc := range []struct {
		name, want string
		err        error
	}{
		{"/lib/a", "/usr/lib/a", nil},
		{"abs", "/usr/lib/a", nil},
		{"/usr/up", "/usr/lib/a", nil},
		{"/up", "", errEscape},
		{"/loop1", "", unix.ELOOP},
		{"/dangling", "/nowhere/at/all", nil},
		{"/missing/../lib/b", "/usr/lib/b", nil},
		{"/lib/self/self/a", "/usr/lib/a", nil},
		{"/", "/", nil},
		{"", "/", nil},
		{"/../..", "/", nil},
	} {
		got, err := r.Resolve(tc.name)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%q: got %q, %v; want %q, %v", tc.name, got, err, tc.want, tc.err)
		}
	}
}

func TestIdentify(t *testing.T) {
	r := makeRootfs(t, debianRootfs)
	f, err := r.identify("/sbin/init")
	if err != nil || f.kind != kindSystemd || f.path != "/usr/lib/systemd/systemd" || f.version != 252 {
		t.Errorf("got %+v, %v", f, err)
	}
	for content, want := range map[string]kind{
		"BusyBox v1.35.0":        kindBusybox,
		"INIT_VERSION=sysvinit-": kindSysvinit,
		"/run/openrc/init.ctl":   kindOpenRC,
		"/run/runit.stopit":      kindRunit,
		"something":              kindUnknown,
	} {
		r := makeRootfs(t, map[string]string{"sbin/init": elf + content})
		if f, err := r.identify("/sbin/init"); err != nil || f.kind != want {
			t.Errorf("%q: got %+v, %v", content, f, err)
		}
	}
}

// A root file system is hostile: nothing in it may make the shim hang or
// read what is not there.
func TestIdentifyHostile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(outside, []byte(elf+"libsystemd-core"), 0o755); err != nil {
		t.Fatal(err)
	}
	fifo := makeRootfs(t, map[string]string{"sbin": "/"})
	if err := unix.Mkfifo(filepath.Join(fifo.root.Name(), "sbin/init"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*Rootfs{
		"link to the host": makeRootfs(t, map[string]string{"sbin/init": "->" + outside}),
		"climbing link":    makeRootfs(t, map[string]string{"sbin/init": "->" + strings.Repeat("../", 20) + outside}),
		"fifo":             fifo,
		"script":           makeRootfs(t, map[string]string{"sbin/init": "#!/bin/sh\n"}),
		"directory":        makeRootfs(t, map[string]string{"sbin/init": "/"}),
		"missing":          makeRootfs(t, map[string]string{"etc": "/"}),
	} {
		if f, err := r.identify("/sbin/init"); err == nil {
			t.Errorf("%s: found %+v", name, f)
		} else if strings.Contains(err.Error(), r.root.Name()) {
			t.Errorf("%s: the error tells a path of the host: %v", name, err)
		}
	}
}

func TestLookPath(t *testing.T) {
	r := makeRootfs(t, debianRootfs)
	for _, tc := range []struct {
		program, cwd string
		env          []string
		want         string
	}{
		{"server", "/", []string{"PATH=/bin", "PATH=/usr/local/bin"}, "/usr/local/bin/server"},
		{"server", "/", []string{"PATH=/bin"}, ""},
		{"./server", "/usr/local/bin", nil, "/usr/local/bin/server"},
		{"server", "/usr/local", []string{"PATH=bin"}, "/usr/local/bin/server"},
		{"/etc/alternatives/service", "/", nil, "/usr/local/bin/server"},
	} {
		got, err := r.lookPath(tc.program, tc.cwd, tc.env)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%+v: got %q, %v", tc, got, err)
		}
	}
}

func FuzzResolvePath(f *testing.F) {
	r := makeRootfs(f, map[string]string{"a/b": "->../c", "c/d": "->/a/b/../..", "up": "->../..", "l": "->l"})
	f.Add("/a/b/../../up")
	f.Add("l/../a/b")
	f.Fuzz(func(t *testing.T, name string) {
		got, err := r.Resolve(name)
		if err == nil && (!filepath.IsAbs(got) || filepath.Clean(got) != got) {
			t.Errorf("%q: got %q", name, got)
		}
	})
}

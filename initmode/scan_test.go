package initmode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// sparse makes a file of 64 MiB that is a hole but for its first bytes.
func sparse(t *testing.T, r *Rootfs, name, content string) {
	t.Helper()
	path := filepath.Join(r.root.Name(), name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755), os.Truncate(path, maxInit)); err != nil {
		t.Fatal(err)
	}
}

// What an image has at the places of inits is looked at in little memory, and
// holes are not read at all.
func TestT13Programs(t *testing.T) {
	r := makeRootfs(t, map[string]string{"etc": "/"})
	for _, name := range systemdPaths {
		sparse(t, r, name, elf)
	}
	used := allocated(func() {
		if f, err := r.findSystemd(); err == nil {
			t.Errorf("found %+v", f)
		}
		if f, err := r.identify(sbinInit); err != nil || f.kind != kindUnknown {
			t.Errorf("got %+v, %v", f, err)
		}
	})
	if limit := uint64(1 << 20); used > limit {
		t.Errorf("%d bytes were allocated, want at most %d", used, limit)
	}
	if read := maxBytes - r.left.bytes; read > 1<<20 {
		t.Errorf("%d bytes were read", read)
	}
}

// A mark counts wherever it is, and the first of the list that is there.
func TestT13Marks(t *testing.T) {
	for _, at := range []int{20, windowSize - 3, windowSize + overlap - 5, 2*windowSize - 1, 3 * windowSize} {
		for name, tc := range map[string]struct {
			content string
			want    found
		}{
			"systemd":  {"libsystemd-core-2571.so", found{kind: kindSystemd, version: 2571}},
			"version":  {"libsystemd-shared-262", found{kind: kindUnknown, version: 262}},
			"sysvinit": {"INIT_VERSION=sysvinit-", found{kind: kindSysvinit}},
			"runit":    {"/run/runit.stopit", found{kind: kindRunit}},
		} {
			for _, before := range []string{"", "BusyBox v1"} {
				want := tc.want
				if before != "" && want.kind == kindUnknown {
					want.kind = kindBusybox
				}
				program := elf + before + strings.Repeat("x", at-len(elf)-len(before)) + tc.content
				r := makeRootfs(t, map[string]string{"sbin/init": program})
				got, err := r.identify(sbinInit)
				want.path = sbinInit
				if err != nil || got != want {
					t.Errorf("%s at %d: got %+v, %v; want %+v", name, at, got, err, want)
				}
			}
		}
	}
}

// What lies behind a hole is found.
func TestT13Holes(t *testing.T) {
	r := makeRootfs(t, map[string]string{"sbin/init": elf})
	f, err := os.OpenFile(filepath.Join(r.root.Name(), sbinInit), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("INIT_VERSION=sysvinit-3"), 32<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err := r.identify(sbinInit); err != nil || f.kind != kindSysvinit {
		t.Errorf("got %+v, %v", f, err)
	}
	// A hole comes first: that is no program.
	sparse(t, r, "hole", "")
	if _, err := r.identify("/hole"); !errors.Is(err, errNotELF) {
		t.Errorf("a file without data: %v", err)
	}
}

// There is a budget for all that a Create reads, which many files cannot
// exceed together.
func TestT13Budget(t *testing.T) {
	r := makeRootfs(t, map[string]string{"sbin/init": elf + strings.Repeat("x", 3<<20)})
	n := 0
	used := allocated(func() {
		for ; n < 1000; n++ {
			if _, err := r.identify(sbinInit); err != nil {
				if !errors.Is(err, errTooMuch) {
					t.Errorf("got %v", err)
				}
				break
			}
		}
	})
	if n > maxBytes/(3<<20) {
		t.Errorf("%d files were read", n)
	}
	if used > 16<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
	if _, err := r.Resolve("/sbin"); !errors.Is(err, errTooMuch) {
		t.Errorf("after the budget is used up: %v", err)
	}
}

// A directory of the image is read in parts, and no further than counts: what
// comes after that costs nothing.
func TestT13Directories(t *testing.T) {
	r := makeRootfs(t, map[string]string{"run": "/", "deep": "/"})
	var used uint64
	made := 0
	for _, entries := range []int{maxCopied + 1, 5 * maxCopied} {
		for ; made < entries; made++ {
			if err := os.Symlink("x", filepath.Join(r.root.Name(), "run", fmt.Sprintf("%0100d", made))); err != nil {
				t.Fatal(err)
			}
		}
		now := allocated(func() {
			if got, err := r.copyable("/run", 1<<40); got || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
		if used != 0 && now > used+used/4 {
			t.Errorf("%d bytes were allocated for %d entries, and %d for %d", used, maxCopied+1, now, entries)
		}
		used = now
	}
	if got := len(r.entries("/run")); got != maxEntries {
		t.Errorf("%d entries, want %d", got, maxEntries)
	}
	deep := filepath.Join(r.root.Name(), "deep", strings.Repeat("d/", maxCopiedDepth+1))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := r.copyable("/deep", 1<<40); got || err != nil {
		t.Errorf("deep: got %v, %v", got, err)
	}
}

// Options that name many services, and an image with many units whose links
// are long, cost no more than the budget either.
func TestT13Units(t *testing.T) {
	r := makeRootfs(t, map[string]string{"etc/systemd/system/a.service": "[Install]\nAlias=other.service\n"})
	far := "/" + strings.Repeat("./", 1000) + "etc/systemd/system/a.service"
	for i := range 3000 {
		if err := os.Symlink(far, filepath.Join(r.root.Name(), "etc/systemd/system", fmt.Sprintf("%d.service", i))); err != nil {
			t.Fatal(err)
		}
	}
	p := &Plan{}
	req := &Request{Rootfs: r}
	for i := range 60 {
		req.Options.Mask = append(req.Options.Mask, fmt.Sprintf("none%d", i))
	}
	req.Options.Mask = append(req.Options.Mask, "other", "a")
	masks := p.masks(req, nil)
	if len(masks) > len(masked)+len(req.Options.Mask)*(maxNames+1) {
		t.Errorf("%d units are masked", len(masks))
	}
	if r.left.err == nil {
		t.Error("the names of one unit are as many as the image likes")
	}
	// 62 services would read it all that often.
	if read := maxBytes - r.left.bytes; read > 3001*100 {
		t.Errorf("%d bytes were read", read)
	}
}

// Where auto finds too much it takes dumb-init, and one who asked for an init
// is told.
func TestT13TooMuch(t *testing.T) {
	for _, init := range []string{config.InitAuto, config.InitSystemd} {
		r := makeRootfs(t, debianRootfs)
		if err := os.MkdirAll(filepath.Join(r.root.Name(), "etc/systemd/system"), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range maxNames + 1 {
			if err := os.Symlink("/etc/a.service", filepath.Join(r.root.Name(), "etc/systemd/system", fmt.Sprintf("%d.service", i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(r.root.Name(), "etc/a.service"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		opts := config.Default()
		opts.Init, opts.InitSource, opts.Mask = init, "here", []string{"1"}
		p, err := New(newRequest(r, opts))
		switch {
		case init == config.InitSystemd && !errors.Is(err, errTooMuch):
			t.Errorf("systemd: got %+v, %v", p, err)
		case init == config.InitAuto && (err != nil || p.Init != config.InitDumbInit || len(p.Notes) != 1):
			t.Errorf("auto: got %+v, %v", p, err)
		}
	}
}

// newRequest is a container of root's that runs a shell.
func newRequest(r *Rootfs, opts config.Options) *Request {
	return &Request{
		Spec: &specs.Spec{
			Process: &specs.Process{Args: []string{"/usr/bin/sh"}, Cwd: "/"},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}}},
		},
		Rootfs: r, Options: opts, MachineID: strings.Repeat("0", 32), RunDir: "/bundle/run",
	}
}

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
	"containerd-shim-rich/initmode"
)

// aliasedUnits are links of an image to a unit of its own, under the names of units that the runtime adds.
var aliasedUnits = []string{"rich-app.service", "rich-failed.service", "rich-reboot.service", "rich-stopping.service", "rich-state.service", "also.service"}

// The plan is looked at first: to write it twice at one place would change the host.
func planAliases(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	units := filepath.Join(dir, "etc/systemd/system")
	err := errors.Join(os.MkdirAll(units, 0o755), os.MkdirAll(filepath.Join(dir, "usr/lib/systemd"), 0o755),
		os.WriteFile(filepath.Join(dir, "usr/lib/systemd/systemd"), []byte("\x7fELF libsystemd-core-252.so"), 0o755),
		os.WriteFile(filepath.Join(units, "foo.service"), nil, 0o644))
	for _, alias := range aliasedUnits {
		err = errors.Join(err, os.Symlink("foo.service", filepath.Join(units, alias)))
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := initmode.OpenRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	plan, err := initmode.New(&initmode.Request{
		Spec: &specs.Spec{Process: &specs.Process{Args: []string{"true"}}, Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}},
		}},
		Rootfs: root, Options: config.Options{Init: config.InitSystemd, OnExit: config.OnExitStop, Mask: []string{"foo"}},
		MachineID: "0123456789abcdef0123456789abcdef", RunDir: "/bundle/rich/run",
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range plan.Files {
		if seen[f.Path] {
			t.Fatalf("two files of the plan are %s", f.Path)
		}
		seen[f.Path] = true
	}
	for _, unit := range []string{"foo.service", "also.service"} {
		if !seen["units/"+unit] {
			t.Errorf("%s is not masked", unit)
		}
	}
}

// Links of an image that are called like units of the runtime do not get in their way when the unit is masked.
func TestT1MaskWithAliasOfOurUnit(t *testing.T) {
	t.Parallel()
	planAliases(t)
	before, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if after, err := os.Stat(os.DevNull); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s is %v, %v; it was %v", os.DevNull, after.Mode(), err, before.Mode())
			_ = os.Chmod(os.DevNull, before.Mode().Perm())
		}
	})
	opts := []taskOption{
		withInit("systemd"), withRich("mask", "foo"), withArgs("sh", "-c", "systemctl is-enabled foo.service also.service rich-app.service; exit 42"),
		withFile("/etc/systemd/system/foo.service", "[Service]\nExecStart=/bin/true\n", 0o644),
	}
	for _, alias := range aliasedUnits {
		opts = append(opts, withLink("/etc/systemd/system/"+alias, "foo.service"))
	}
	if got := runTask(t, imageBookworm, runLimit, opts...); got.Code != 42 || got.Stdout != "masked-runtime\nmasked-runtime\nstatic\n" {
		t.Errorf("got %+v", got)
	}
	if after, err := os.Stat(os.DevNull); err != nil || after.Mode() != before.Mode() || after.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("%s is %v, %v; it was %v", os.DevNull, after.Mode(), err, before.Mode())
	}
}

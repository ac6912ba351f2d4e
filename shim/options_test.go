package shim

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"containerd-shim-rich/config"
)

func TestParseOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, []byte("NoPivotRoot = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		in   any
		want handlerOptions
		err  string
	}{
		{"none", nil, handlerOptions{}, ""},
		{"runc", &options.Options{Root: "/r", SystemdCgroup: true, NoNewKeyring: true}, handlerOptions{root: "/r", systemdCgroup: true, noNewKeyring: true}, ""},
		{"another runtime", &options.Options{BinaryName: "crun"}, handlerOptions{}, `BinaryName: value "crun"`},
		{
			"CRI",
			&runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = true\n[rich]\ninit = \"systemd\"\nstop-signal = 3\n")},
			handlerOptions{systemdCgroup: true, rich: config.Values{"init": config.Text("systemd"), "stop-signal": config.Text("3")}},
			"",
		},
		{"file", &runtimeoptions.Options{ConfigPath: file}, handlerOptions{noPivotRoot: true}, ""},
		{"no file", &runtimeoptions.Options{ConfigPath: "/nowhere"}, handlerOptions{}, "ConfigPath"},
		{"no TOML", &runtimeoptions.Options{ConfigBody: []byte("{")}, handlerOptions{}, "ConfigBody"},
		{"bad table", &runtimeoptions.Options{ConfigBody: []byte("[rich]\ninit = 1.5\n")}, handlerOptions{}, "table rich"},
		{"shim's cgroup", &options.Options{ShimCgroup: "/shims"}, handlerOptions{shimCgroup: "/shims"}, ""},
		{"shim's cgroup by CRI", &runtimeoptions.Options{ConfigBody: []byte("ShimCgroup = '/shims'\n")}, handlerOptions{shimCgroup: "/shims"}, ""},
		{
			"all that containerd's own configuration has for runc",
			&runtimeoptions.Options{ConfigBody: []byte("BinaryName = ''\nCriuImagePath = ''\nCriuWorkPath = ''\nIoGid = 0\nIoUid = 0\nNoNewKeyring = false\nNoPivotRoot = false\nRoot = ''\nShimCgroup = ''\nSystemdCgroup = true\n")},
			handlerOptions{systemdCgroup: true},
			"",
		},
		{"what containerd reads itself", &runtimeoptions.Options{ConfigBody: []byte("TypeUrl = 'x'\nTaskApiVersion = 3\n")}, handlerOptions{}, ""},
		{"case", &runtimeoptions.Options{ConfigBody: []byte("systemdcgroup = true\n")}, handlerOptions{systemdCgroup: true}, ""},
		{"streams' owner", &runtimeoptions.Options{ConfigBody: []byte("IoUid = 1234\n")}, handlerOptions{}, ""},
		{"checkpoints", &options.Options{CriuWorkPath: "/w"}, handlerOptions{}, `CriuWorkPath: value "/w"`},
		{"checkpoints by CRI", &runtimeoptions.Options{ConfigBody: []byte("CriuImagePath = '/w'\n")}, handlerOptions{}, `CriuImagePath: value "/w"`},
		{"typing error", &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroups = true\n")}, handlerOptions{}, `unknown option "SystemdCgroups", the nearest known one is "SystemdCgroup"`},
		{"outside the table", &runtimeoptions.Options{ConfigBody: []byte("init = 'systemd'\n")}, handlerOptions{}, "belong in the table rich"},
		{"bad value", &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = 'yes'\n")}, handlerOptions{}, "ConfigBody"},
		{"foreign", &emptypb.Empty{}, handlerOptions{}, "want"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in *anypb.Any
			if tc.in != nil {
				var err error
				if in, err = typeurl.MarshalAnyToProto(tc.in); err != nil {
					t.Fatal(err)
				}
			}
			got, err := parseOptions(in)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

// A file of runtime options is read as the host's own are: it says what root
// runs, and nothing in its place may block or fill the shim.
func TestT12ConfigPath(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(path string) error
		want string
	}{
		"fifo":     {func(path string) error { return unix.Mkfifo(path, 0o600) }, "not a regular file"},
		"device":   {func(path string) error { return os.Symlink("/dev/zero", path) }, "not a regular file"},
		"writable": {func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)) }, "0666"},
		"large":    {func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30)) }, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "options.toml")
			if err := tc.make(path); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := fromTOML(&runtimeoptions.Options{ConfigPath: path})
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want %q and the path", err, tc.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it blocks")
			}
		})
	}
}

func TestBootstrapOptions(t *testing.T) {
	for name, message := range map[string]proto.Message{
		"runc": &options.Options{ShimCgroup: "/shims"},
		"CRI":  &runtimeoptions.Options{ConfigBody: []byte("ShimCgroup = '/shims'\n")},
	} {
		params := &bootapi.BootstrapParams{}
		if err := params.AddExtension(message); err != nil {
			t.Fatal(err)
		}
		if got, err := bootstrapOptions(params); err != nil || got.shimCgroup != "/shims" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if got, err := bootstrapOptions(&bootapi.BootstrapParams{}); err != nil || !reflect.DeepEqual(got, handlerOptions{}) {
		t.Errorf("none: got %+v, %v", got, err)
	}
}

func TestIsOn(t *testing.T) {
	for value, want := range map[string]bool{"": false, "0": false, "false": false, "1": true, "true": true, "yes": true} {
		if got := isOn(value); got != want {
			t.Errorf("%q: got %v", value, got)
		}
	}
}

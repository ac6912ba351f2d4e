package shim

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
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

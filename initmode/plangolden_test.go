package initmode_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/initmode"
	"containerd-shim-rich/launch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// baseCommand starts the process of the base spec, without what is the
// runtime's in its environment.
func baseCommand() *launch.Record {
	return &launch.Record{
		Args: []string{"/bin/sh", "-c", "exit 42"},
		Env:  []string{"PATH=/bin", "A=hello world", "SYSTEMD_LOG_LEVEL=debug", "LD_PRELOAD=/x.so"},
		Cwd:  "/srv",
		// Those that runc gives a process whose spec has none.
		Umask:        new(uint32(0o22)),
		Capabilities: &launch.Capabilities{Bounding: baseCapabilities, Effective: baseCapabilities, Permitted: baseCapabilities},
		Rlimits: []launch.Rlimit{
			{Resource: unix.RLIMIT_NOFILE, Soft: 1 << 20, Hard: 1 << 20},
			{Resource: unix.RLIMIT_CORE},
			{Resource: unix.RLIMIT_CPU, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
		},
		StopSignal: int(unix.SIGTERM),
	}
}

// baseOrder starts a component of root's that asks for nothing.
func baseOrder() *launch.Run {
	return &launch.Run{
		Record: launch.Record{
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "RICH_CONTAINER_ID=app-1", "RICH_NAMESPACE=k8s.io",
			},
			Cwd:          "/",
			Umask:        new(uint32(0o22)),
			Capabilities: &launch.Capabilities{Bounding: baseCapabilities, Effective: baseCapabilities, Permitted: baseCapabilities},
			Rlimits: []launch.Rlimit{
				{Resource: unix.RLIMIT_NOFILE, Soft: 1024, Hard: 4096},
				{Resource: unix.RLIMIT_CORE, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
				{Resource: unix.RLIMIT_CPU, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
			},
			NoNewPrivileges: true,
			OOMScoreAdj:     new(1000),
			StopSignal:      int(unix.SIGTERM),
		},
		Delay: time.Second, MaxDelay: time.Minute, StopTimeout: 5 * time.Second,
	}
}

// baseCapabilities are those of the base spec.
const baseCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE

// golden is the text of a golden file. A line that is empty or begins with a
// tab goes on with what the last other one says.
type golden struct {
	testing.TB
	strings.Builder
}

func (g *golden) line(format string, args ...any) {
	for i, line := range strings.Split(fmt.Sprintf(format, args...), "\n") {
		if i > 0 && line != "" {
			line = "\t" + line
		}
		fmt.Fprintln(g, line)
	}
}

// differs writes how a document differs from its base.
func (g *golden) differs(name string, base, document any) {
	g.Helper()
	before, after := fieldsOf(g, base), fieldsOf(g, document)
	lines := difference(before, after)
	if restored := apply(g, before, lines); !reflect.DeepEqual(restored, after) {
		g.Errorf("%s cannot be told from its difference:\n%s", name, strings.Join(lines, "\n"))
	}
	g.line("%s", strings.Join(slices.Concat([]string{name}, lines), "\n"))
}

// file writes one that the plan adds: its lines, or its content in quotes if
// that is not made of lines.
func (g *golden) file(f initmode.File) {
	if f.Link != "" {
		g.line("file %s -> %s", f.Path, f.Link)
		return
	}
	private := ""
	if f.Private {
		private = " private"
	}
	text, lines := strings.CutSuffix(string(f.Data), "\n")
	if lines && isText(text) {
		g.line("file %s %o%s\n%s", f.Path, f.Mode, private, text)
	} else {
		g.line("file %s %o%s %q", f.Path, f.Mode, private, f.Data)
	}
}

func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

// result writes what a plan makes of a container.
func (g *golden) result(got result) {
	g.Helper()
	plan := got.plan
	g.line("init %s", plan.Init)
	g.line("command is %v", plan.Shape)
	if plan.Halt != 0 {
		g.line("halt %d", plan.Halt)
	}
	if plan.Console {
		g.line("console")
	}
	if plan.RebootMessage != "" {
		g.line("reboot %q", plan.RebootMessage)
	}
	for _, note := range plan.Notes {
		g.line("note %s", note)
	}
	g.differs("spec", baseSpec(), got.spec)
	if plan.Service != nil {
		g.differs("service", baseCommand(), plan.Service)
	}
	if plan.Child != nil {
		g.differs("child", baseCommand(), plan.Child)
	}
	for _, c := range plan.Components {
		g.differs("component", baseOrder(), c.Order)
	}
	for _, f := range plan.Files {
		if f.Link != "/dev/null" { // the masked units are a list of their own
			g.file(f)
		}
	}
}

// The golden files hold what becomes of each case: how the spec differs from
// the base, the orders of the launcher from those of the base, and the files.
func TestPlanGolden(t *testing.T) {
	for _, tc := range planCases {
		t.Run(tc.name, func(t *testing.T) {
			g := &golden{TB: t}
			got, err := tc.run(t, tc.spec())
			if isError := err != nil; isError != strings.HasPrefix(tc.name, "error-") {
				t.Errorf("error: %v", err)
			}
			if err != nil {
				g.line("error %v", err)
			} else {
				g.result(got)
			}
			file := filepath.Join("testdata", tc.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(g.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if g.String() != string(want) {
				t.Errorf("%s differs (go test ./initmode -update writes it anew); got\n%s", file, g)
			}
		})
	}
}

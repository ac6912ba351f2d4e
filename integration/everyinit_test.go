package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// serviceInits are the inits of the matrix that the field cases' own tests leave out. The way from an init to the command is
// the launcher's and the same for all, so each gets the cases' hard values in few containers.
func serviceInits() []variant {
	var variants []variant
	for _, v := range matrixInits {
		if v.program != "systemd" && v.init != "dumb-init" {
			variants = append(variants, variant{v.name, v.image, v.init})
		}
	}
	return append(variants, variant{"systemd 257", imageTrixie, "sbin-init"})
}

func TestFieldCasesOfEveryInit(t *testing.T) {
	t.Parallel()
	env := []string{
		"A=hello world", `B=it's "quoted" \ back\nslash`, "C=line1\nline2\n", "D=  lead and trail  ", "E=", "F=a=b=c", "G=#notcomment",
		`H=ends with backslash\`, "I=$HOME ${X} %h %n %%", "J=\ttab", "L=" + strings.Repeat("x", 100<<10), "HOME=/nowhere", "PATH=/usr/bin:/bin",
		"lower.case-dots=1", "1NUM=2", "A B=3", "BASH_FUNC_x%%=() { :; }", "RC_SVCNAME=x", "ENV=/etc/passwd", "RUNLEVEL=9",
	}
	args := []string{probePath, "", "a b", "'", `"`, `\`, "$HOME", "$(id)", "`id`", "%n", "%%", ";", "&&", "--", "*", "~", "#c", "a\nb", "\tt", "@x", "\r\n"}
	for _, c := range []struct {
		name  string
		check func(r probeReport) bool
		opts  []taskOption
	}{
		{
			"B1 B2 B6 B7",
			func(r probeReport) bool {
				return r.UID == 1000660000 && slices.Equal(r.Groups, []uint32{2000, 3000}) && r.Umask == 63 && r.CapAmbient == "0000000000000400" &&
					r.NoNewPrivs == "1" && r.Rlimits["RLIMIT_NOFILE"].Soft == 64 && r.OOMScoreAdj == 985
			},
			[]taskOption{withProbe(args[1:]...), setEnv(env...), withUser(1000660000, 0, 2000, 3000), withProcess(func(p *specs.Process) {
				umask, score, bind := uint32(63), 985, []string{"CAP_NET_BIND_SERVICE"}
				p.User.Umask, p.Cwd, p.OOMScoreAdj, p.NoNewPrivileges = &umask, "/srv/new/folder", &score, true
				p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable, p.Capabilities.Ambient = bind, bind, bind, bind
				p.Rlimits = []specs.POSIXRlimit{
					{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 100}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_MEMLOCK", Soft: 65536, Hard: 65536},
				}
			})},
		},
		{
			"B6 B7 root",
			func(r probeReport) bool {
				return r.GID == 7 && slices.Equal(r.Groups, []uint32{1, 4, 9}) && r.Seccomp == "2" && r.NoNewPrivs == "0" && r.Nice == 7 && len(r.Rlimits) == 16
			},
			[]taskOption{withProbe("x"), withUser(0, 7, 1, 4, 9), withSpec(seccomp.WithDefaultProfile()), withProcess(func(p *specs.Process) {
				few := []string{"CAP_CHOWN", "CAP_KILL"}
				p.NoNewPrivileges, p.Rlimits = false, nil
				p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable = few, few, few
				p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 7}
				p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			})},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			likeRunc(t, serviceInits(), func(t *testing.T, r probeReport) {
				if !c.check(r) {
					t.Errorf("without init: %+v", unplaced(r))
				}
			}, c.opts...)
		})
	}
	t.Run("B24", func(t *testing.T) {
		t.Parallel()
		forEach(t, serviceInits(), func(t *testing.T, v variant) {
			got := runTask(t, v.image, initLimit, v.with(withUser(1000, 1000), withArgs("sh", "-c",
				`echo out; echo err >&2; head -c 300000 /dev/zero | tr '\0' x; echo a >/dev/stdout; echo b >/dev/stderr; sleep 1; echo last; exit 3`))...)
			if want := "out\n" + strings.Repeat("x", 300000) + "a\nlast\n"; got.Stdout != want || got.Stderr != "err\nb\n" || got.Code != 3 {
				t.Errorf("%d bytes of stdout …%q, stderr %q, status %d", len(got.Stdout), tail(got.Stdout), got.Stderr, got.Code)
			}
		})
	})
	// While it runs: an exec has the container's environment, the init reaps what others leave, and a kill of all gives 137.
	t.Run("B5 B33 B8", func(t *testing.T) {
		t.Parallel()
		forEach(t, serviceInits(), func(t *testing.T, v variant) {
			run := startTask(t, v.image, v.with(setEnv("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=it's %n"), withArgs("sh", "-c", ready+idle))...)
			run.WaitOutput("ready\n", initLimit)
			if got := run.Exec("sh", "-c", `echo "$GREETING"`); got.Stdout != "it's %n\n" {
				t.Errorf("exec got %+v", got)
			}
			for range 5 {
				run.Exec("sh", "-c", "sleep 0.3 & exit 0")
			}
			eventually(t, initLimit, "the end of the zombies", func() error {
				if left := zombies(t, run.shimPID(), int(run.Task.Pid())); len(left) > 0 {
					return fmt.Errorf("%q", left)
				}
				return nil
			})
			run.Kill(syscall.SIGKILL)
			if code := run.Wait(initLimit); code != 137 {
				t.Errorf("exit status %d, want 137", code)
			}
			run.Delete()
		})
	})
}

package initmode

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

func TestMasks(t *testing.T) {
	root := makeRootfs(t, map[string]string{
		"usr/lib/systemd/system/ssh.service":  "[Install]\nAlias=sshd.service\n",
		"usr/lib/systemd/system/cron.service": "[Install]\nAlias=cronie.service vixie.service\n",
		"etc/systemd/system/sshd.service":     "->/usr/lib/systemd/system/ssh.service",
		"etc/systemd/system/job@.service":     "[Unit]\n",
		"etc/systemd/system/gone.service":     "->/dev/null",
	})
	for _, tc := range []struct {
		mask, wanted []string
		has, hasNot  []string
	}{
		{nil, nil, []string{"getty@.service", "tmp.mount"}, nil},
		{nil, []string{"getty@tty1.service", "tmp.mount"}, []string{"serial-getty@.service"}, []string{"getty@.service", "tmp.mount"}},
		{[]string{"sshd"}, nil, []string{"sshd.service", "ssh.service"}, nil},
		{[]string{"ssh"}, nil, []string{"sshd.service", "ssh.service"}, []string{"cron.service"}},
		{[]string{"vixie"}, nil, []string{"vixie.service", "cron.service"}, nil},
		{[]string{"job@1"}, nil, []string{"job@1.service"}, []string{"job@.service"}},
		{[]string{"job@"}, nil, []string{"job@.service"}, nil},
		{[]string{"absent", "apt-daily.timer", "gone"}, nil, []string{"absent.service", "apt-daily.timer", "gone.service"}, []string{"null"}},
		{[]string{"tmp.mount"}, nil, []string{"tmp.mount"}, nil},
	} {
		req := &Request{Spec: &specs.Spec{}, Rootfs: root, Options: config.Options{Mask: tc.mask}}
		got := new(Plan).masks(req, tc.wanted)
		for _, unit := range tc.has {
			if n := len(slices.DeleteFunc(slices.Clone(got), func(g string) bool { return g != unit })); n != 1 {
				t.Errorf("%+v: %q is there %d times", tc, unit, n)
			}
		}
		for _, unit := range tc.hasNot {
			if slices.Contains(got, unit) {
				t.Errorf("%+v: %q is masked", tc, unit)
			}
		}
	}
}

func TestUnitNames(t *testing.T) {
	for name, want := range map[string]string{
		"cron": "cron.service", "a.b": "a.b.service", "x.timer": "x.timer", "getty@tty1": "getty@tty1.service", "dev-x.device": "dev-x.device.service",
	} {
		if got := unitName(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{"getty@tty1.service": "getty@.service", "getty@.service": "", "cron.service": "", "a@b@c.timer": "a@.timer"} {
		got, ok := template(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v, want %q", name, got, ok, want)
		}
	}
}

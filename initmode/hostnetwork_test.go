package initmode

import (
	"slices"
	"testing"

	"containerd-shim-rich/config"
)

// With the host's network no service of an image sets it up, but for one that
// was asked for, with all that starts it.
func TestT14Masks(t *testing.T) {
	const networkd, socket, bus = "systemd-networkd.service", "systemd-networkd.socket", "dbus-org.freedesktop.network1.service"
	for _, tc := range []struct {
		name           string
		host           bool
		services       []string
		masked, runs   []string
		script, noLine bool // init scripts, and lines of an inittab, are kept from it
	}{
		{"the host's", true, nil, []string{networkd, socket, bus, "nftables.service", "ifup@.service", "systemd-sysctl.service"}, []string{"ssh.service"}, true, true},
		{"its own", false, nil, []string{"systemd-sysctl.service"}, []string{networkd, socket, bus, "nftables.service", "ifup@.service"}, false, false},
		{"asked for", true, []string{"systemd-networkd"}, []string{"nftables.service"}, []string{networkd, socket, bus}, true, true},
		{"asked for by another name", true, []string{"dbus-org.freedesktop.network1"}, []string{"nftables.service"}, []string{networkd, socket}, true, true},
		{"an instance", true, []string{"wg-quick@wg0"}, []string{networkd}, []string{"wg-quick@.service", "wg-quick.service"}, true, true},
		{"a script", true, []string{"networking", "ip"}, []string{networkd}, []string{"networking.service", "ifup@.service"}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := makeRootfs(t, map[string]string{"etc/init.d/networking": "#!/bin/sh\n", "etc/init.d/cron": "#!/bin/sh\n"})
			req := newRequest(r, config.Options{Services: tc.services})
			req.HostNetwork = tc.host
			p := &Plan{}
			var wanted []string
			for _, s := range tc.services {
				wanted = append(wanted, unitName(s))
			}
			masks := p.masks(req, wanted)
			for _, unit := range tc.masked {
				if !slices.Contains(masks, unit) {
					t.Errorf("%s is not masked", unit)
				}
			}
			for _, unit := range tc.runs {
				if slices.Contains(masks, unit) {
					t.Errorf("%s is masked", unit)
				}
			}
			if slices.Sort(masks); len(slices.Compact(slices.Clone(masks))) != len(masks) {
				t.Error("a unit is masked twice")
			}
			if err := p.maskScripts(req); err != nil {
				t.Fatal(err)
			}
			covered := slices.ContainsFunc(p.Mounts, func(m Mount) bool { return m.Resolved == "/etc/init.d/networking" })
			if covered != tc.script || len(p.Mounts) > 1 {
				t.Errorf("covered are %+v", p.Mounts)
			}
			left := unmasked(parseInittab([]byte("::sysinit:/sbin/ip link set eth0 down\n::once:/bin/x\n")), req.foreignPrograms())
			if (len(left) == 1) != tc.noLine {
				t.Errorf("left of the inittab: %+v", left)
			}
		})
	}
}

package initmode

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"containerd-shim-rich/components"
)

func TestLogin(t *testing.T) {
	for process, want := range map[string]bool{
		"/sbin/getty 38400 tty1":             true,
		"/sbin/agetty --noclear tty1 linux":  true,
		"exec /usr/sbin/mingetty tty1":       true,
		"/bin/sh -c 'exec /sbin/getty tty1'": true,
		"/sbin/sulogin --force":              true,
		"/bin/login":                         true,
		"-/bin/sh":                           true,
		"/bin/bash":                          true,
		"/bin/ash --login":                   true,
		"/sbin/syslogd -n":                   false,
		"/usr/sbin/sshd -D":                  false,
		"/bin/sh -c 'exec /usr/bin/daemon'":  false,
		"/usr/bin/rlogind":                   false,
		"/etc/init.d/getty-less":             false,
		"+/usr/bin/daemon":                   false,
	} {
		if got := (inittabEntry{process: process}).isLogin(); got != want {
			t.Errorf("%q: %v", process, got)
		}
	}
}

func TestSysvDefaultLevel(t *testing.T) {
	for levels, want := range map[string]string{"2": "2", "3": "3", "35": "5", "S": "2", "0": "2", "6": "2", "1": "2", "": "2", "x": "2"} {
		entries := parseInittab([]byte("id:" + levels + ":initdefault:\n"))
		got := sysvInittab(entries, sysvLevel(entries), "/l", "", componentLines{}, false)
		if !slices.Contains(got, "id:"+want+":initdefault:") {
			t.Errorf("%q: %q, want level %s", levels, got, want)
		}
	}
}

// count returns how many lines end like that.
func count(lines []string, end string) (n int) {
	for _, line := range lines {
		if strings.HasSuffix(line, end) {
			n++
		}
	}
	return n
}

// Whatever an image has, the command is started once, after what has to come
// first, and no terminal is served.
func FuzzInittab(f *testing.F) {
	f.Add([]byte("id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n1:2345:respawn:/sbin/getty 38400 tty1\n"))
	f.Add([]byte("tty1::respawn:/sbin/getty 38400 tty1\n::askfirst:-/bin/sh\n::once:x"))
	f.Add([]byte("rich:2:once:/bin/x\nric4:0:wait:/bin/y\nid:6:initdefault:"))
	f.Add([]byte(" rich:2:once:/bin/x\r\n:::\n\x00::once:x\n#::once:y"))
	const launcher, services = "/run/rich/launch", "/run/rich/services"
	p := &Plan{Components: []Component{
		{Definition: &components.Definition{Name: "a"}},
		{Definition: &components.Definition{Name: "b"}},
	}}
	inBusybox := p.componentLines(launcher, "::shutdown:", func(int) string { return "::once:" })
	inSysv := p.componentLines(launcher, "rkst:016:wait:", func(i int) string { return fmt.Sprintf("rk%02d:023456:once:", i) })
	f.Add([]byte("rk00:2:once:/bin/x\nrkst:0:wait:/bin/y\nrk1:2:once:/bin/z"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries := unmasked(parseInittab(data), []string{"crond"})
		for name, lines := range map[string][]string{
			"busybox":  busyboxInittab(entries, launcher, services, inBusybox),
			"sysvinit": sysvInittab(entries, sysvLevel(entries), launcher, services, inSysv, false),
		} {
			for _, command := range []string{" component a", " component b", " stop --components"} {
				if n := count(lines, ":"+launcher+command); n != 1 {
					t.Errorf("%s: %d lines with %q in %q", name, n, command, lines)
				}
			}
			ids := map[string]int{}
			app, started, stopped := 0, 0, 0
			for i, line := range lines {
				if strings.ContainsAny(line, "\n\x00") || len(line) > maxInittabLine {
					t.Errorf("%s: bad line %q", name, line)
				}
				if strings.HasPrefix(line, "#") {
					continue
				}
				e := strings.SplitN(line, ":", 4)
				ids[e[0]]++
				if e[2] == "askfirst" || e[2] == "respawn" && strings.HasPrefix(e[3], "/sbin/getty ") {
					t.Errorf("%s: %q", name, line)
				}
				switch e[3] {
				case launcher + " stop":
					stopped = i
				case services + " start":
					started = i
				case services + " stop":
					if stopped == 0 {
						t.Errorf("%s: services are stopped before the command in %q", name, lines)
					}
				}
				if program, _, _ := strings.Cut(e[3], " "); path.Base(program) == "crond" {
					t.Errorf("%s: %q is masked", name, line)
				}
				if e[3] == launcher+" app" && i == len(lines)-1 {
					app++
				}
			}
			if app != 1 || started < len(lines)-5 {
				t.Errorf("%s: no services and command at the end of %q", name, lines)
			}
			for _, id := range append([]string{"rkst", "rk00", "rk01"}, sysvIDs...) {
				if name == "sysvinit" && ids[id] != 1 {
					t.Errorf("%d lines have the id %q in %q", ids[id], id, lines)
				}
			}
		}
	})
}

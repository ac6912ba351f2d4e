package initmode

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// sysvinit makes sysvinit pid 1, whatever its scripts are.
type sysvinit struct {
	own bool
}

func (s sysvinit) plan(req *Request, p *Plan) error {
	// It ignores TERM. With the line below, PWR is /sbin/init 0.
	at, err := p.boot(req, s.own, unix.SIGPWR, sbinInit)
	if err != nil {
		return err
	}
	data, _, err := req.Rootfs.config(inittabPath)
	if err != nil {
		return err
	}
	entries := unmasked(parseInittab(data), slices.Concat(req.foreignPrograms(), req.Options.Mask))
	level := sysvLevel(entries)
	links := []string{"/etc/rcS.d", "/etc/rc" + level + ".d"}
	starts := slices.DeleteFunc(slices.Clone(req.Options.Services), func(name string) bool {
		return req.Rootfs.enabled(name, started, links...) ||
			req.Rootfs.hasOpenRC() && req.Rootfs.enabled(name, verbatim, openrcLevels...)
	})
	scripts, err := p.initScripts(req, starts)
	if err != nil {
		return err
	}
	if err := p.maskScripts(req, links...); err != nil {
		return err
	}
	services := p.servicesCommand(at, scripts)
	components := p.componentLines(path.Join(at, "launch"), "rkst:016:wait:", func(i int) string {
		// In all levels but 1, like the command's line.
		return fmt.Sprintf("rk%02d:023456:once:", i)
	})
	p.Files = append(p.Files, text("inittab", sysvInittab(entries, level, path.Join(at, "launch"), services, components, s.own)...))
	return p.cover(req, "inittab", inittabPath)
}

// defaultLevel is Debian's.
const defaultLevel = "2"

// sysvIDs are those of our lines: of two lines with the same one it takes
// the first.
var sysvIDs = []string{"id", "ric1", "ric2", "ric3", "ric4", "ric5", "ric6", "rich"}

// sysvComponentID matches those of the components.
var sysvComponentID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^rk([0-9][0-9]|st)$`) })

// sysvLevel is the runlevel that is entered. Of more than one sysvinit takes
// the highest. Only in these does a machine work.
func sysvLevel(entries []inittabEntry) string {
	level := defaultLevel
	for _, e := range entries {
		for _, l := range []string{"2", "3", "4", "5"} {
			if e.action == "initdefault" && strings.Contains(e.levels, l) {
				level = l
			}
		}
	}
	return level
}

// sysvInittab is the image's inittab without what serves terminals and what
// reacts to the keyboard or the power supply, with our own lines. With own
// the command is the init itself. services is the command that starts and stops
// services, if there are any, and components are the lines that run those.
func sysvInittab(entries []inittabEntry, level, launcher, services string, components componentLines, own bool) []string {
	var kept []string
	for _, e := range entries {
		switch e.action {
		case "respawn", "wait", "once":
			if e.isLogin() {
				continue
			}
		case "sysinit", "boot", "bootwait", "ondemand":
		default:
			continue
		}
		if slices.Contains(sysvIDs, e.id) || sysvComponentID().MatchString(e.id) || e.id == "" || len(e.id) > 4 {
			continue
		}
		kept = append(kept, e.line)
	}
	lines := []string{
		"# Made by containerd-shim-rich from the image's own.",
		"id:" + level + ":initdefault:",
		// Before the others: it does not look behind a line that it waits for.
		"ric1:#*12345:powerwait:/sbin/init 0",
	}
	if !own {
		lines = append(lines, "ric2:016:wait:"+launcher+" stop")
	}
	lines = append(lines, "ric3:6:wait:"+launcher+" event reboot")
	if services != "" {
		lines = append(lines, "ric5:016:wait:"+services+" stop")
		kept = append(kept, "ric6:2345:wait:"+services+" start")
	}
	lines = append(lines, components.stop...)
	lines = append(lines, kept...)
	lines = append(lines, components.run...)
	// Without CAP_SYS_BOOT it stays for ever when all is done.
	lines = append(lines, "ric4:06:wait:"+launcher+" event halted")
	if !own {
		// Levels 0 and 6 are here only so that the command is not ended when
		// they begin, with 3 s between TERM and KILL.
		lines = append(lines, "rich:023456:once:"+launcher+" app")
	}
	return lines
}

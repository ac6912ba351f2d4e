package initmode

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

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
	launcher := ""
	if !s.own {
		launcher = path.Join(at, "launch")
	}
	components := p.componentLines(path.Join(at, "launch"), "rkst:016:wait:", func(i int) string {
		// In all levels but 1, like the CMD's line.
		return fmt.Sprintf("rk%02d:023456:once:", i)
	})
	p.Files = append(p.Files, text("inittab", sysvInittab(data, launcher, components)...))
	return p.cover(req, "inittab", inittabPath)
}

// defaultLevel is Debian's.
const defaultLevel = "2"

// sysvIDs are those of our lines: of two lines with the same one it takes
// the first.
var sysvIDs = []string{"id", "ric1", "ric2", "ric3", "ric4", "rich"}

// sysvComponentID matches those of the components.
var sysvComponentID = regexp.MustCompile(`^rk([0-9][0-9]|st)$`)

// sysvInittab is the image's inittab without what serves terminals and what
// reacts to the keyboard or the power supply, with our own lines, those of
// the components among them. With no launcher the CMD is the init itself.
func sysvInittab(data []byte, launcher string, components componentLines) []string {
	level := defaultLevel
	var kept []string
	for _, e := range parseInittab(data) {
		switch e.action {
		case "initdefault":
			// Of more than one it takes the highest. Only in these does
			// a machine work.
			for _, l := range []string{"2", "3", "4", "5"} {
				if strings.Contains(e.levels, l) {
					level = l
				}
			}
			continue
		case "respawn", "wait", "once":
			if e.isLogin() {
				continue
			}
		case "sysinit", "boot", "bootwait", "ondemand":
		default:
			continue
		}
		if slices.Contains(sysvIDs, e.id) || sysvComponentID.MatchString(e.id) || e.id == "" || len(e.id) > 4 {
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
	if launcher != "" {
		// Levels 0 and 6 are in the CMD's line only so that it is not
		// ended when they begin, with 3 s between TERM and KILL.
		lines = append(lines,
			"ric2:016:wait:"+launcher+" stop",
			"ric3:6:wait:"+launcher+" event reboot",
		)
	}
	lines = append(lines, components.stop...)
	lines = append(lines, kept...)
	lines = append(lines, components.run...)
	if launcher != "" {
		// Without CAP_SYS_BOOT it stays for ever when all is done.
		lines = append(lines,
			"ric4:06:wait:"+launcher+" event halted",
			"rich:023456:once:"+launcher+" app",
		)
	}
	return lines
}

package initmode

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const inittabPath = "/etc/inittab"

// inittabEntry is a line of an inittab(5) of sysvinit or busybox init.
type inittabEntry struct {
	id, levels, action, process string
	line                        string
}

// maxInittabLine is what sysvinit reads as one line, in bytes.
const maxInittabLine = 254

// parseInittab returns the entries of an inittab. What no init would take
// for one is left out.
func parseInittab(data []byte) []inittabEntry {
	var entries []inittabEntry
	for raw := range bytes.Lines(data) {
		line := strings.TrimSpace(string(raw))
		fields := strings.SplitN(line, ":", 4)
		if strings.HasPrefix(line, "#") || len(fields) != 4 || len(line) > maxInittabLine || strings.ContainsRune(line, 0) {
			continue
		}
		entries = append(entries, inittabEntry{
			id: fields[0], levels: fields[1], action: fields[2], process: strings.TrimSpace(fields[3]), line: line,
		})
	}
	return entries
}

// unmasked are the entries without those that run one of the programs.
func unmasked(entries []inittabEntry, names []string) []inittabEntry {
	return slices.DeleteFunc(entries, func(e inittabEntry) bool {
		program, _, _ := strings.Cut(e.process, " ")
		return slices.Contains(names, path.Base(program))
	})
}

// loginProgram matches a program that serves a terminal.
var loginProgram = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(^|[\s/+-])([a-z]*getty|(su)?login)(\s|$)`) })

// isLogin reports whether an entry waits for somebody at a terminal.
func (e inittabEntry) isLogin() bool {
	program, _, _ := strings.Cut(e.process, " ")
	return loginProgram().MatchString(e.process) || strings.HasPrefix(program, "-") || shells[path.Base(program)] && !strings.Contains(e.process, " -c")
}

// shells run from an inittab without a script are for somebody at a terminal.
var shells = map[string]bool{"sh": true, "ash": true, "bash": true, "dash": true}

// Package components reads what a host's operator offers to run beside the
// command of a container: agents for monitoring, logs or audit, each
// with a TOML file of its own. A container chooses among them by name; what
// they are and where they lie on the host is the operator's alone.
package components

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pelletier/go-toml/v2"

	"containerd-shim-rich/config"
)

// Values of the key restart.
const (
	RestartAlways    = "always"
	RestartOnFailure = "on-failure"
	RestartNever     = "never"
)

// Values of the key start.
const (
	StartBefore = "before"
	StartAfter  = "after"
)

// Values of the key log.
const (
	LogFile      = "file"
	LogContainer = "container"
	LogSyslog    = "syslog"
)

// userCommand is the value of the key user that stands for the command's.
const userCommand = "command"

// Definition is one component.
type Definition struct {
	Name string
	// Directory of the host that the container sees read-only; empty for none.
	Directory string
	// Exec is argv. A relative program lies in Directory, an absolute one in
	// the image.
	Exec []string
	// Env holds NAME=VALUE, sorted by name.
	Env  []string
	User User
	// Before says that the command waits until the component is ready.
	Before bool
	// Restart is one of the Restart constants.
	Restart string
	// RestartDelay is the first pause before a restart; each further one is
	// twice as long, up to RestartMaxDelay.
	RestartDelay, RestartMaxDelay time.Duration
	// StopTimeout lies between TERM and KILL.
	StopTimeout time.Duration
	Ready       Ready
	// ReadyTimeout is how long the command waits.
	ReadyTimeout time.Duration
	// Required says that there is no command without the component.
	Required bool
	// Memory is its limit in bytes, 0 for none but the container's.
	Memory int64
	// CPU is its limit in hundredths of a processor, 0 for none but the
	// container's.
	CPU int64
	// Log is one of the Log constants.
	Log string
	// LogSize bounds each of the two files of a log on the host, in bytes.
	LogSize int64
}

// User is whom a component runs as.
type User struct {
	Command  bool // as the command, with its groups
	UID, GID uint32
}

// Ready tells when a component is ready: at once when it has been started if
// both are empty.
type Ready struct {
	Port int      // accepts connections at the loopback address
	Exec []string // a command, like Definition.Exec, ends with 0
}

// validName keeps names fit for files, units and scripts.
var validName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`) })

// CheckName says what is wrong with a component's name.
func CheckName(name string) error {
	if !validName().MatchString(name) {
		return errors.New("want 1 to 32 letters a to z, digits and hyphens, with no hyphen at either end")
	}
	return nil
}

// Parse reads a definition. Every error names the key, the value and what is
// accepted.
func Parse(name string, data []byte) (*Definition, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, err
	}
	d := &Definition{
		Name:            name,
		Restart:         RestartAlways,
		RestartDelay:    time.Second,
		RestartMaxDelay: time.Minute,
		StopTimeout:     5 * time.Second,
		ReadyTimeout:    30 * time.Second,
		Log:             LogFile,
		LogSize:         10 << 20,
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		k := find(key)
		if k == nil {
			return nil, fmt.Errorf("unknown key %q, the nearest known one is %q", key, config.Nearest(key, names(), 1)[0])
		}
		if err := k.apply(d, values[key]); err != nil {
			return nil, fmt.Errorf("%s: value %s: %w", key, show(values[key]), err)
		}
	}
	return d, d.check(values)
}

// check looks at what keys mean together.
func (d *Definition) check(values map[string]any) error {
	if len(d.Exec) == 0 {
		return errors.New(`exec: missing; give the program and its arguments, such as ["bin/agent", "--quiet"]`)
	}
	for key, argv := range map[string][]string{"exec": d.Exec, "ready": d.Ready.Exec} {
		if len(argv) > 0 && !path.IsAbs(argv[0]) && d.Directory == "" {
			return fmt.Errorf("%s: value %q: a relative path lies in directory, which is missing; set it, or give an absolute path of the image", key, argv[0])
		}
	}
	if !d.Before {
		for _, key := range []string{"ready", "ready-timeout", "required"} {
			if v, ok := values[key]; ok {
				return fmt.Errorf("%s: value %s: the command waits for no component that starts after it; remove the key, or set start to %q", key, show(v), StartBefore)
			}
		}
	}
	if d.RestartMaxDelay < d.RestartDelay {
		return fmt.Errorf("restart-max-delay: value %q: less than restart-delay (%q)", d.RestartMaxDelay, d.RestartDelay)
	}
	return nil
}

// show makes any value fit a message of one line.
func show(v any) string {
	s := fmt.Sprintf("%q", fmt.Sprint(v))
	const limit = 200
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

package components

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"containerd-shim-rich/config"
)

// Key describes one key of a definition. The table of them is the single
// source for parsing, for error messages and for docs/components.md.
type Key struct {
	// Name as typed by operators.
	Name string
	// Values says what is accepted.
	Values string
	// Default as typed by operators.
	Default string
	// Meaning in one sentence or two.
	Meaning string

	apply func(*Definition, any) error
}

// Bounds of values.
const (
	minMemory = 4 << 20
	maxMemory = 1 << 40
	maxCPU    = 1024 * 100
	maxArgs   = 1024
)

// Table lists every key, sorted by name.
var Table = []Key{
	{
		Name: "cpus", Values: "a number of 0.01 to 1024 with at most two decimals", Default: "no limit but the container's",
		Meaning: "Processors that the component and all it starts may use.",
		apply: func(d *Definition, v any) error {
			n, ok := number(v)
			hundredths := math.Round(n * 100)
			if !ok || math.IsNaN(n) || math.Abs(n*100-hundredths) > 1e-6 || hundredths < 1 || hundredths > maxCPU {
				return errors.New("want a number from 0.01 to 1024 with at most two decimals, such as 0.25")
			}
			d.CPU = int64(hundredths)
			return nil
		},
	},
	{
		Name: "directory", Values: "an absolute path of the host", Default: "none",
		Meaning: "Directory that the container sees read-only as `/run/rich/components/NAME`. It is the component's working directory.",
		apply: func(d *Definition, v any) error {
			dir, ok := v.(string)
			if !ok || !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" || holdsNUL(dir) {
				return errors.New("want an absolute path of a directory, without . and .., such as /usr/lib/agents/node-exporter")
			}
			d.Directory = dir
			return nil
		},
	},
	{
		Name: "env", Values: "a table of strings", Default: "none",
		Meaning: "Environment of the component, beside `PATH`, `HOME` and the variables below. Nothing of the command's comes in.",
		apply: func(d *Definition, v any) error {
			table, ok := v.(map[string]any)
			if !ok {
				return errors.New(`want a table, such as { LEVEL = "info" }`)
			}
			for name, value := range table {
				text, ok := value.(string)
				if !ok || name == "" || strings.Contains(name, "=") || holdsNUL(name, text) {
					return fmt.Errorf("%q: want a string for a name without =", name)
				}
				d.Env = append(d.Env, name+"="+text)
			}
			slices.Sort(d.Env)
			return nil
		},
	},
	{
		Name: "exec", Values: "a list of strings", Default: "",
		Meaning: "Program and arguments; no shell reads them. A relative program lies in `directory`, an absolute one in the image.",
		apply: func(d *Definition, v any) (err error) {
			d.Exec, err = command(v)
			return err
		},
	},
	{
		Name: "log", Values: "`file`, `container` or `syslog`", Default: LogFile,
		Meaning: "Where the output goes: to a file on the host, to the container's log, or to the syslog or journal in the container.",
		apply: func(d *Definition, v any) error {
			return choose(&d.Log, v, LogFile, LogContainer, LogSyslog)
		},
	},
	{
		Name: "log-size", Values: "a size of 64k to 1g", Default: "10m",
		Meaning: "Size at which the file of `log = \"file\"` is renamed and a new one begun; one old file is kept.",
		apply: func(d *Definition, v any) error {
			return size(&d.LogSize, v, 64<<10, 1<<30, "64k to 1g, such as 10m")
		},
	},
	{
		Name: "memory", Values: "a size of 4m to 1024g", Default: "no limit but the container's",
		Meaning: "Memory that the component and all it starts may use; beyond it the kernel kills one of them.",
		apply: func(d *Definition, v any) error {
			return size(&d.Memory, v, minMemory, maxMemory, "4m to 1024g, such as 64m")
		},
	},
	{
		Name: "ready", Values: "`none`, `tcp:PORT` or a list of strings", Default: "none",
		Meaning: "When the component is ready: when it has been started, when its port accepts connections at the loopback address, or when a command, given like `exec` and tried again and again, ends with 0.",
		apply: func(d *Definition, v any) (err error) {
			if _, ok := v.([]any); ok {
				d.Ready.Exec, err = command(v)
				return err
			}
			port, ok := strings.CutPrefix(fmt.Sprint(v), "tcp:")
			if !ok {
				var none string
				if choose(&none, v, "none") != nil {
					return errors.New(`want none, tcp:PORT or a command such as ["bin/check"]`)
				}
				return nil
			}
			if d.Ready.Port, err = strconv.Atoi(port); err != nil || d.Ready.Port < 1 || d.Ready.Port > math.MaxUint16 {
				return errors.New("want a port from 1 to 65535, such as tcp:9100")
			}
			return nil
		},
	},
	{
		Name: "ready-timeout", Values: "a duration of 1s to 10m", Default: "30s",
		Meaning: "How long the command waits for the component to be ready.",
		apply: func(d *Definition, v any) error {
			return duration(&d.ReadyTimeout, v, time.Second, 10*time.Minute, "1s to 10m, such as 30s")
		},
	},
	{
		Name: "required", Values: "`true` or `false`", Default: "false",
		Meaning: "If the component cannot be started or is not ready in time, the command is not started and the task ends with 125; without it the command starts all the same.",
		apply: func(d *Definition, v any) error {
			required, ok := v.(bool)
			if !ok {
				return errors.New("want true or false")
			}
			d.Required = required
			return nil
		},
	},
	{
		Name: "restart", Values: "`always`, `on-failure` or `never`", Default: RestartAlways,
		Meaning: "Whether the component is started again when it has ended. A failure is an exit code other than 0, or a signal.",
		apply: func(d *Definition, v any) error {
			return choose(&d.Restart, v, RestartAlways, RestartOnFailure, RestartNever)
		},
	},
	{
		Name: "restart-delay", Values: "a duration of 100ms to 1h", Default: "1s",
		Meaning: "Pause before the first restart. Each further pause is twice as long, until the component has run for `restart-max-delay`.",
		apply: func(d *Definition, v any) error {
			return duration(&d.RestartDelay, v, 100*time.Millisecond, time.Hour, "100ms to 1h, such as 1s")
		},
	},
	{
		Name: "restart-max-delay", Values: "a duration of 100ms to 1h", Default: "1m",
		Meaning: "The longest pause before a restart.",
		apply: func(d *Definition, v any) error {
			return duration(&d.RestartMaxDelay, v, 100*time.Millisecond, time.Hour, "100ms to 1h, such as 1m")
		},
	},
	{
		Name: "start", Values: "`before` or `after`", Default: StartAfter,
		Meaning: "Whether the component starts before the command, which then waits until it is ready, or after it. It stops after the command in both cases.",
		apply: func(d *Definition, v any) error {
			var start string
			err := choose(&start, v, StartBefore, StartAfter)
			d.Before = start == StartBefore
			return err
		},
	},
	{
		Name: "stop-timeout", Values: "a duration of 0s to 90s", Default: "5s",
		Meaning: "Time between SIGTERM and SIGKILL when the component is stopped. The option `halt-timeout` of the container goes first.",
		apply: func(d *Definition, v any) error {
			return duration(&d.StopTimeout, v, 0, 90*time.Second, "0s to 90s, such as 5s")
		},
	},
	{
		Name: "user", Values: "`UID`, `UID:GID` or `command`", Default: "0:0",
		Meaning: "Ids that the component runs as, with no supplementary group; without a GID it is the same number. `command` stands for the user and the groups of the command.",
		apply: func(d *Definition, v any) error {
			text, ok := v.(string)
			if text == userCommand {
				d.User = User{Command: true}
				return nil
			}
			uid, gid, both := strings.Cut(text, ":")
			if !both {
				gid = uid
			}
			u, err := strconv.ParseUint(uid, 10, 31)
			g, err2 := strconv.ParseUint(gid, 10, 31)
			if !ok || err != nil || err2 != nil {
				return errors.New(`want a string with numbers, such as "65534:65534", or "command"`)
			}
			d.User = User{UID: uint32(u), GID: uint32(g)}
			return nil
		},
	},
}

func find(name string) *Key {
	for i := range Table {
		if Table[i].Name == name {
			return &Table[i]
		}
	}
	return nil
}

func names() []string {
	out := make([]string, len(Table))
	for i := range Table {
		out[i] = Table[i].Name
	}
	return out
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func choose(field *string, v any, accepted ...string) error {
	text, _ := v.(string)
	if !slices.Contains(accepted, text) {
		return fmt.Errorf("want one of %s; the nearest is %q", strings.Join(accepted, ", "), config.Nearest(text, accepted, 1)[0])
	}
	*field = text
	return nil
}

func size(field *int64, v any, low, high int64, want string) error {
	n, err := config.ParseSize(fmt.Sprint(v))
	if err != nil || n < low || n > high {
		return errors.New("want a size from " + want)
	}
	*field = n
	return nil
}

func duration(field *time.Duration, v any, low, high time.Duration, want string) error {
	text, _ := v.(string)
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high {
		return errors.New("want a duration from " + want)
	}
	*field = d
	return nil
}

// command reads argv. Its program must not lead out of the directory.
func command(v any) ([]string, error) {
	want := errors.New(`want a list of 1 to 1024 strings, the first a path below directory or an absolute one of the image, such as ["bin/agent", "--quiet"]`)
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > maxArgs {
		return nil, want
	}
	argv := make([]string, len(list))
	for i, item := range list {
		if argv[i], ok = item.(string); !ok || holdsNUL(argv[i]) {
			return nil, want
		}
	}
	program := argv[0]
	if program == "" || path.Clean(program) != program || program == "." || program == "/" || program == ".." || strings.HasPrefix(program, "../") {
		return nil, want
	}
	return argv, nil
}

func holdsNUL(texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsRune(s, 0) })
}

package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/signal"
)

// Option describes one setting. The table of them is the single source for
// parsing, for error messages and for docs/configuration.md.
type Option struct {
	// Name as typed by users.
	Name string
	// Values says what is accepted.
	Values string
	// Default as typed by users.
	Default string
	// Meaning in one sentence.
	Meaning string

	// hostOnly keeps an option from annotations: it is the operator's.
	hostOnly bool

	apply func(*Options, string) error
}

// Table lists every option, sorted by name.
var Table = []Option{
	{
		Name:     "always-components",
		Values:   "names of components, separated by commas",
		Default:  "none",
		Meaning:  "Components ([components.md](components.md)) that run in every container, beside those that it chooses. Only in the host's file and in runtime options.",
		hostOnly: true,
		apply:    func(o *Options, v string) error { return parseList(&o.AlwaysComponents, v) },
	},
	{
		Name:    "components",
		Values:  "names of components, separated by commas",
		Default: "none",
		Meaning: "Components that run in the container, of those that the host offers.",
		apply:   func(o *Options, v string) error { return parseList(&o.Components, v) },
	},
	{
		Name:    "halt-timeout",
		Values:  "a duration of 1s to 10m",
		Default: "10s",
		Meaning: "How long the init may take to halt after the CMD has ended, before it is killed.",
		apply: func(o *Options, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < time.Second || d > 10*time.Minute {
				return errors.New("want a duration from 1s to 10m, such as 30s")
			}
			o.HaltTimeout = d
			return nil
		},
	},
	{
		Name:    "init",
		Values:  "`auto`, `systemd`, `sbin-init`, `dumb-init` or `none`",
		Default: InitAuto,
		Meaning: "What becomes pid 1. `auto` takes the init that the CMD itself is, else, if the user is root, systemd or another init at /sbin/init, else dumb-init; `sbin-init` takes what the image has at /sbin/init; `none` changes nothing.",
		apply: func(o *Options, v string) error {
			return choose(&o.Init, v, InitAuto, InitSystemd, InitSbinInit, InitDumbInit, InitNone)
		},
	},
	{
		Name:    "root-init",
		Values:  "`explicit`, `always` or `never`",
		Default: RootInitExplicit,
		Meaning: "When the init of a container whose user is not root may run as root: if that init was asked for by name, always, or never.",
		apply: func(o *Options, v string) error {
			return choose(&o.RootInit, v, RootInitExplicit, RootInitAlways, RootInitNever)
		},
	},
	{
		Name:    "run-size",
		Values:  "a size of 1m to 64g in bytes, or with the suffix k, m or g",
		Default: "half of the memory limit, at most 256m; without a limit 256m",
		Meaning: "Size of the tmpfs that the init gets at /run when the container has no mount there.",
		apply: func(o *Options, v string) error {
			n, err := ParseSize(v)
			if err != nil || n < 1<<20 || n > 64<<30 {
				return errors.New("want a size from 1m to 64g, such as 128m")
			}
			o.RunSize = n
			return nil
		},
	},
	{
		Name:    "stop-signal",
		Values:  "a signal's name or number",
		Default: "the image's stop signal if the engine tells it, beside SIGTERM",
		Meaning: "A further signal that asks the container to stop: the CMD gets it, and the init halts when the CMD has ended or was not running.",
		apply: func(o *Options, v string) error {
			n, err := ParseSignal(v)
			if err != nil {
				return err
			}
			o.StopSignal = n
			return nil
		},
	},
}

// ParseSignal reads a signal's name, with or without SIG, or its number.
func ParseSignal(v string) (int, error) {
	if n, err := strconv.Atoi(v); err == nil {
		if n < 1 || n > 64 {
			return 0, errors.New("want a signal from 1 to 64, such as 15")
		}
		return n, nil
	}
	n, err := signal.ParseSignal(v)
	if err != nil {
		return 0, errors.New("want a signal's name or number, such as SIGTERM or SIGRTMIN+3")
	}
	return int(n), nil
}

// parseList reads names separated by commas. An empty text is an empty list.
func parseList(field *[]string, v string) error {
	*field = nil
	if v == "" {
		return nil
	}
	for _, name := range strings.Split(v, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("want names separated by commas, such as node-exporter,log-agent")
		}
		if slices.Contains(*field, name) {
			return fmt.Errorf("%q occurs twice; keep one", name)
		}
		*field = append(*field, name)
	}
	return nil
}

func find(name string) *Option {
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

func choose(field *string, value string, accepted ...string) error {
	if !slices.Contains(accepted, value) {
		return fmt.Errorf("want one of %s; the nearest is %q", strings.Join(accepted, ", "), Nearest(value, accepted))
	}
	*field = value
	return nil
}

// ParseSize reads a size in bytes, with or without the suffix k, m or g.
func ParseSize(v string) (int64, error) {
	shift := 0
	if v != "" {
		switch v[len(v)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
	}
	if shift > 0 {
		v = v[:len(v)-1]
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("size %q", v)
	}
	return n << shift, nil
}

// Nearest returns the accepted word with the smallest edit distance to word.
func Nearest(word string, accepted []string) string {
	best, bestDistance := "", 1<<30
	for _, a := range accepted {
		if d := distance(word, a); d < bestDistance {
			best, bestDistance = a, d
		}
	}
	return best
}

// distance is the Levenshtein distance; words beyond 64 bytes are cut, as no
// option is longer.
func distance(a, b string) int {
	if len(a) > 64 {
		a = a[:64]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

package config

import (
	"errors"
	"fmt"
	"reflect"
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
	// Where it may be set.
	Where Place
	// List says that it takes any number of entries.
	List bool

	set     func(*Options, string) error
	setList func(*Options, []string) error
}

// Place is where options are set.
type Place uint8

// The places, from high to low precedence.
const (
	ByContainer Place = 1 << iota // annotations, and PouchContainer's environment
	ByHandler                     // runtime options
	ByHost                        // the host's file

	Anywhere = ByContainer | ByHandler | ByHost
)

// String names the places for messages and for the documentation.
func (p Place) String() string {
	var names []string
	for _, place := range []struct {
		Place
		name string
	}{{ByContainer, "annotation"}, {ByHandler, "handler"}, {ByHost, "host file"}} {
		if p&place.Place != 0 {
			names = append(names, place.name)
		}
	}
	return strings.Join(names, ", ")
}

// apply sets the option to a value.
func (opt *Option) apply(o *Options, v Value) error {
	if opt.List {
		list, err := v.list()
		if err != nil {
			return err
		}
		return opt.setList(o, list)
	}
	text, err := v.single()
	if err != nil {
		return err
	}
	return opt.set(o, text)
}

// one is the value that a single text is, an entry if the option is a list.
func (opt *Option) one(text string) Value {
	if opt.List {
		return Value{array: []string{text}}
	}
	return Text(text)
}

// same reports whether two values, which may be written differently, mean the
// same.
func (opt *Option) same(a, b Value) bool {
	x, y := Default(), Default()
	return opt.apply(&x, a) == nil && opt.apply(&y, b) == nil && reflect.DeepEqual(x, y)
}

// Table lists every option, sorted by name.
var Table = []Option{
	{
		Name:    "always-components",
		Values:  "names of components, separated by commas or spaces",
		Default: "none",
		Meaning: "Components ([components.md](components.md)) that run in every container, beside those that it chooses.",
		Where:   ByHandler | ByHost,
		List:    true,
		setList: func(o *Options, v []string) error {
			o.AlwaysComponents = v
			return nil
		},
	},
	{
		Name:    "components",
		Values:  "names of components, separated by commas or spaces",
		Default: "none",
		Meaning: "Components that run in the container, of those that the host offers.",
		Where:   Anywhere,
		List:    true,
		setList: func(o *Options, v []string) error {
			o.Components = v
			return nil
		},
	},
	{
		Name:    "halt-timeout",
		Values:  "a duration of 1s to 10m",
		Default: "10s",
		Meaning: "How long the init may take to halt after the command has ended, before it is killed.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < time.Second || d > 10*time.Minute {
				return errors.New("want a duration from 1s to 10m, such as 30s")
			}
			o.HaltTimeout = d
			return nil
		},
	},
	{
		Name:    "hook-timeout",
		Values:  "a duration of 1s to 10m",
		Default: "30s",
		Meaning: "How long a hook may take that has no timeout of its own, before it is killed and counts as failed.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < minHookTimeout || d > maxHookTimeout {
				return errors.New("want a duration from 1s to 10m, such as 30s")
			}
			o.HookTimeout = d
			return nil
		},
	},
	{
		Name:    "host-hooks",
		Values:  "`yes` or `no`",
		Default: "no",
		Meaning: "Whether the hooks that the host has in /usr/share/containers/oci/hooks.d and /etc/containers/oci/hooks.d for Podman and CRI-O run for containers of this runtime as well; see hooks.md.",
		Where:   ByHost,
		set: func(o *Options, v string) error {
			if err := choose(&v, v, "yes", "no"); err != nil {
				return err
			}
			o.HostHooks = v == "yes"
			return nil
		},
	},
	{
		Name:    "init",
		Values:  "`auto`, `systemd`, `sbin-init`, `dumb-init` or `none`",
		Default: InitAuto,
		Meaning: "What becomes pid 1. `auto` takes the init that the command itself is, else, if the user is root, systemd or another init at /sbin/init, else dumb-init; `sbin-init` takes what the image has at /sbin/init; `none` changes nothing.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			return choose(&o.Init, v, InitAuto, InitSystemd, InitSbinInit, InitDumbInit, InitNone)
		},
	},
	{
		Name:    "login-env",
		Values:  "`yes` or `no`",
		Default: "yes",
		Meaning: "Under an init for services, give login shells the environment of the container by a file in /etc/profile.d, if the image has that directory.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			if err := choose(&v, v, "yes", "no"); err != nil {
				return err
			}
			o.LoginEnv = v == "yes"
			return nil
		},
	},
	{
		Name:    "mask",
		Values:  "services, separated by commas or spaces",
		Default: "none",
		Meaning: "Services of the image that are not to run, whoever starts them.",
		Where:   Anywhere,
		List:    true,
		setList: func(o *Options, v []string) error { return setServices(&o.Mask, v) },
	},
	{
		Name:    "on-exit",
		Values:  "`stop`, `restart` or `keep`",
		Default: OnExitStop,
		Meaning: "What happens when the command ends by itself: the container stops, the command is started again in it, or the container is kept without it.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			return choose(&o.OnExit, v, OnExitStop, OnExitRestart, OnExitKeep)
		},
	},
	{
		Name:    "poststop",
		Values:  "a path in the container, or a JSON array of hooks",
		Default: "none",
		Meaning: "Programs that run in the container after the command has ended, before the init halts; see hooks.md.",
		Where:   Anywhere,
		set: func(o *Options, v string) (err error) {
			o.Poststop, err = parseHooks(v)
			return err
		},
	},
	{
		Name:    "prestart",
		Values:  "a path in the container, or a JSON array of hooks",
		Default: "none",
		Meaning: "Programs that run in the container before the command is started, which is not started if one fails; see hooks.md.",
		Where:   Anywhere,
		set: func(o *Options, v string) (err error) {
			o.Prestart, err = parseHooks(v)
			return err
		},
	},
	{
		Name:    "root-init",
		Values:  "`explicit`, `always` or `never`",
		Default: RootInitExplicit + "; in a pod never",
		Meaning: "When something that a container's author chooses may run as root although its user is not root, an init or a hook: if that init was asked for by name, always, or never. A pod's annotation can only lower it.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			return choose(&o.RootInit, v, RootInitExplicit, RootInitAlways, RootInitNever)
		},
	},
	{
		Name:    "run-size",
		Values:  "a size of 1m to 64g in bytes, or with the suffix k, m or g",
		Default: "half of the memory limit, at most 256m; without a limit 256m",
		Meaning: "Size of the tmpfs that the init gets at /run when the container has no mount there.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
			n, err := ParseSize(v)
			if err != nil || n < 1<<20 || n > 64<<30 {
				return errors.New("want a size from 1m to 64g, such as 128m")
			}
			o.RunSize = n
			return nil
		},
	},
	{
		Name:    "services",
		Values:  "services, separated by commas or spaces",
		Default: "none",
		Meaning: "Services of the image that are started before the command, whether the image enables them or not.",
		Where:   Anywhere,
		List:    true,
		setList: func(o *Options, v []string) error { return setServices(&o.Services, v) },
	},
	{
		Name:    "stop-signal",
		Values:  "a signal's name or number",
		Default: "the image's stop signal if the engine tells it, beside SIGTERM",
		Meaning: "A further signal that asks the container to stop: the command gets it, and the init halts when the command has ended or was not running.",
		Where:   Anywhere,
		set: func(o *Options, v string) error {
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
		return fmt.Errorf("want one of %s; the nearest is %q", strings.Join(accepted, ", "), Nearest(value, accepted, 1)[0])
	}
	*field = value
	return nil
}

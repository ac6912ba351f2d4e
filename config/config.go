// Package config resolves the options of a rich container from everything
// that may set them: annotations, PouchContainer's environment, the runtime
// options of the handler and the host's file.
package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Prefix is what every annotation of this runtime begins with. An option is
// set for all containers of a pod by "rich.containerd.io/OPTION", and for
// one container by "rich.containerd.io/CONTAINER.OPTION".
const Prefix = "rich.containerd.io/"

// PouchContainer's environment variables, understood for compatibility and
// removed from the environment of the CMD.
const (
	PouchMode   = "rich_mode"
	PouchManner = "rich_mode_launch_manner"
)

// Values of the option init.
const (
	InitAuto     = "auto"
	InitSystemd  = "systemd"
	InitSbinInit = "sbin-init"
	InitDumbInit = "dumb-init"
	InitNone     = "none"
)

// Values of the option root-init.
const (
	RootInitExplicit = "explicit"
	RootInitAlways   = "always"
	RootInitNever    = "never"
)

// Options are the settings of one container.
type Options struct {
	// Init names what becomes pid 1.
	Init string
	// InitSource says what set Init, for messages; empty for the default.
	InitSource string
	// RootInit says when the init of a container whose user is not root
	// may run as root.
	RootInit string
	// StopSignal is a further signal, beside SIGTERM, that asks the
	// container to stop; 0 for none.
	StopSignal int
	// HaltTimeout is how long the init may take to halt before it is killed.
	HaltTimeout time.Duration
	// RunSize is the size in bytes of the tmpfs mounted at /run; 0 derives
	// it from the memory limit.
	RunSize int64
	// Components name what runs beside the CMD, of what the host offers;
	// AlwaysComponents do so in every container. Where a name comes from is
	// in the sources, for messages.
	Components, AlwaysComponents             []string
	ComponentsSource, AlwaysComponentsSource string
}

// Default returns the options that apply when nothing sets them.
func Default() Options {
	return Options{
		Init:        InitAuto,
		RootInit:    RootInitExplicit,
		HaltTimeout: 10 * time.Second,
	}
}

// Explicit reports whether the init was asked for by name.
func (o Options) Explicit() bool { return o.InitSource != "" && o.Init != InitAuto }

// Sources are the places that options come from, in the order of their
// precedence from high to low.
type Sources struct {
	// Annotations are those of the bundle.
	Annotations map[string]string
	// Container is the container's name within its pod, which selects
	// "rich.containerd.io/CONTAINER.OPTION"; may be empty.
	Container string
	// Env is the environment of the CMD.
	Env []string
	// Runtime holds the options of the runtime handler.
	Runtime map[string]string
	// Host holds the options of the host's file.
	Host map[string]string
}

// Resolve merges the sources. An unknown key or a bad value is an error that
// names the key, the value and what is accepted.
func Resolve(src Sources) (Options, error) {
	opts := Default()
	for _, layer := range []struct {
		name   string
		values map[string]string
	}{
		{HostFile + ": ", src.Host},
		{"runtime option ", src.Runtime},
	} {
		for _, key := range slices.Sorted(maps.Keys(layer.values)) {
			if err := opts.set(key, layer.values[key], layer.name+key); err != nil {
				return Options{}, err
			}
		}
	}
	if err := opts.setPouch(src.Env); err != nil {
		return Options{}, err
	}
	// The more specific annotation is applied last, so that it wins.
	var pod, own []string
	for _, key := range slices.Sorted(maps.Keys(src.Annotations)) {
		rest, ok := strings.CutPrefix(key, Prefix)
		if !ok {
			continue
		}
		container, name, specific := cutLast(rest)
		if !specific {
			pod = append(pod, key)
			continue
		}
		if find(name) == nil {
			return Options{}, unknown("annotation "+key, name)
		}
		if container == src.Container {
			own = append(own, key)
		}
	}
	for _, key := range append(pod, own...) {
		name := strings.TrimPrefix(key, Prefix)
		if _, last, ok := cutLast(name); ok {
			name = last
		}
		if opt := find(name); opt != nil && opt.hostOnly {
			return Options{}, fmt.Errorf("annotation %s: value %q: only the host's operator may set %s, in %s or in the runtime options; remove the annotation",
				key, src.Annotations[key], name, HostFile)
		}
		if err := opts.set(name, src.Annotations[key], "annotation "+key); err != nil {
			return Options{}, err
		}
	}
	return opts, nil
}

// cutLast splits "container.option" at the last dot: a container's name may
// hold dots (in containerd, not in Kubernetes), an option's never does.
func cutLast(s string) (container, option string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func (o *Options) set(key, value, source string) error {
	opt := find(key)
	if opt == nil {
		return unknown(source, key)
	}
	if err := opt.apply(o, strings.TrimSpace(value)); err != nil {
		return fmt.Errorf("%s: value %q: %w", source, value, err)
	}
	switch opt.Name {
	case "init":
		o.InitSource = source
	case "components":
		o.ComponentsSource = source
	case "always-components":
		o.AlwaysComponentsSource = source
	}
	return nil
}

// setPouch applies PouchContainer's variables: rich_mode must be "true" for
// rich_mode_launch_manner to mean anything, and a missing manner is dumb-init.
func (o *Options) setPouch(env []string) error {
	var mode, manner string
	for _, kv := range env {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case PouchMode:
			mode = strings.TrimSpace(v)
		case PouchManner:
			manner = strings.TrimSpace(v)
		}
	}
	switch {
	case mode != "true":
		return nil
	case manner == "":
		return o.set("init", InitDumbInit, "environment variable "+PouchMode)
	}
	return o.set("init", manner, "environment variable "+PouchManner)
}

// WithoutPouch returns env without PouchContainer's variables.
func WithoutPouch(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == PouchMode || k == PouchManner
	})
}

func unknown(source, key string) error {
	return fmt.Errorf("%s: unknown option %q, the nearest known one is %q", source, key, Nearest(key, names()))
}

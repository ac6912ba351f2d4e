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
// removed from the environment of the command.
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

// rootInits are those values, each allowing more than the one before.
var rootInits = []string{RootInitNever, RootInitExplicit, RootInitAlways}

// Values of the option on-exit.
const (
	OnExitStop    = "stop"
	OnExitRestart = "restart"
	OnExitKeep    = "keep"
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
	// RootInitSource says what set RootInit; empty for the default.
	RootInitSource string
	// OnExit says what happens when the command ends by itself.
	OnExit string
	// OnExitSource says what set OnExit, for messages; empty for the default.
	OnExitSource string
	// LoginEnv gives login shells the container's environment.
	LoginEnv bool
	// StopSignal is a further signal, beside SIGTERM, that asks the
	// container to stop; 0 for none.
	StopSignal int
	// HaltTimeout is how long the init may take to halt before it is killed.
	HaltTimeout time.Duration
	// RunSize is the size in bytes of the tmpfs mounted at /run; 0 derives
	// it from the memory limit.
	RunSize int64
	// Services are those of the image that are to be started, without the
	// suffix ".service".
	Services []string
	// ServicesSource says what set Services, for messages.
	ServicesSource string
	// Mask are the services that must not run, named like Services.
	Mask []string
	// Prestart run before the command is started, Poststop after it has ended.
	// The sources say what set them, for messages, and the operator's are
	// those that the container did not set itself.
	Prestart, Poststop                   []Hook
	PrestartSource, PoststopSource       string
	OperatorsPrestart, OperatorsPoststop bool
	// HookTimeout is how long a hook may take that has no timeout of its own.
	HookTimeout time.Duration
	// HostHooks lets the hooks run that the host has for other engines.
	HostHooks bool
	// Components name what runs beside the command, of what the host offers;
	// AlwaysComponents do so in every container. The sources say what set
	// them, for messages.
	Components, AlwaysComponents             []string
	ComponentsSource, AlwaysComponentsSource string
}

// Default returns the options that apply when nothing sets them.
func Default() Options {
	return Options{
		Init:        InitAuto,
		RootInit:    RootInitExplicit,
		OnExit:      OnExitStop,
		LoginEnv:    true,
		HaltTimeout: 10 * time.Second,
		HookTimeout: 30 * time.Second,
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
	// InPod says that a pod's author has made the container, who is not root
	// on the host: without a word of the host's administrator nothing in it
	// runs as root that is not to.
	InPod bool
	// Env is the environment of the command.
	Env []string
	// Runtime holds the options of the runtime handler.
	Runtime Values
	// Host is the host's file.
	Host Host
}

// Resolve merges the sources. An unknown key, a bad value and a value that
// the host's file forbids are errors that name the key, the value and what is
// accepted.
func Resolve(src Sources) (Options, error) {
	r := resolver{opts: Default(), inPod: src.InPod}
	if src.InPod {
		r.opts.RootInit = RootInitNever
	}
	for _, key := range slices.Sorted(maps.Keys(src.Host.Options)) {
		value := src.Host.Options[key]
		source := HostFile + ": " + key
		if value.line > 0 {
			source = fmt.Sprintf("%s: line %d: %s", HostFile, value.line, key)
		}
		if err := r.set(ByHost, key, value, source); err != nil {
			return Options{}, err
		}
	}
	r.host = src.Host
	for _, key := range slices.Sorted(maps.Keys(src.Runtime)) {
		if err := r.set(ByHandler, key, src.Runtime[key], "runtime option "+key); err != nil {
			return Options{}, err
		}
	}
	r.most = r.opts.RootInit
	if err := r.setPouch(src.Env); err != nil {
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
			return Options{}, fmt.Errorf("annotation %s: %w", key, unknown(name))
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
		if err := r.set(ByContainer, name, Text(src.Annotations[key]), "annotation "+key); err != nil {
			return Options{}, err
		}
	}
	return r.opts, nil
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

// resolver applies sources one after the other.
type resolver struct {
	opts Options
	host Host // limits what is applied
	// most is what the annotations of a pod may set root-init to, if inPod.
	most  string
	inPod bool
}

// checkPod says why a pod's author may not set an option like that.
func (r *resolver) checkPod(place Place, next Options) error {
	if !r.inPod || place != ByContainer || slices.Index(rootInits, next.RootInit) <= slices.Index(rootInits, r.most) {
		return nil
	}
	return fmt.Errorf("value %q: a pod's annotation may only lower the option from %q; remove it, or ask the node's administrator for root-init = %q in %s",
		next.RootInit, r.most, next.RootInit, HostFile)
}

func (r *resolver) set(place Place, key string, value Value, source string) error {
	opt := find(key)
	if opt == nil {
		return fmt.Errorf("%s: %w", source, unknown(key))
	}
	if opt.Where&place == 0 {
		return fmt.Errorf("%s: option %q cannot be set here, only by: %s", source, key, opt.Where)
	}
	next := r.opts
	if err := opt.apply(&next, value); err != nil {
		return fmt.Errorf("%s: value %q: %w", source, value, err)
	}
	if err := r.host.permits(opt, value, r.opts, next); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if err := r.checkPod(place, next); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	switch opt.Name {
	case "prestart":
		next.PrestartSource, next.OperatorsPrestart = source, place != ByContainer
	case "poststop":
		next.PoststopSource, next.OperatorsPoststop = source, place != ByContainer
	case "root-init":
		next.RootInitSource = source
	case "init":
		next.InitSource = source
	case "services":
		next.ServicesSource = source
	case "components":
		next.ComponentsSource = source
	case "always-components":
		next.AlwaysComponentsSource = source
	case "on-exit":
		next.OnExitSource = source
	}
	r.opts = next
	return nil
}

// setPouch applies PouchContainer's variables: rich_mode must be "true" for
// rich_mode_launch_manner to mean anything, and a missing manner is dumb-init.
func (r *resolver) setPouch(env []string) error {
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
		return r.set(ByContainer, "init", Text(InitDumbInit), "environment variable "+PouchMode)
	}
	return r.set(ByContainer, "init", Text(manner), "environment variable "+PouchManner)
}

// WithoutPouch returns env without PouchContainer's variables.
func WithoutPouch(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == PouchMode || k == PouchManner
	})
}

// unknown says which option, or which other word, may have been meant.
func unknown(key string, others ...string) error {
	return fmt.Errorf("unknown option %q, the nearest known one is %q", key, Nearest(key, append(names(), others...), 1)[0])
}

package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// hostVersion is the version of the format that is understood, that of
// oci-hooks(5).
const hostVersion = "1.0.0"

// HostHook is a file of hooks.d: a hook of the OCI runtime specification and
// the containers it is for.
type HostHook struct {
	// Hook is as the specification has it.
	Hook specs.Hook
	// Stages are those at which it runs.
	Stages []string

	always        *bool
	hasBindMounts *bool
	annotations   []annotationPattern
	commands      []*regexp.Regexp
}

type annotationPattern struct{ key, value *regexp.Regexp }

// stages are those of the specification, with where a hook of each goes.
var stages = map[string]func(*specs.Hooks) *[]specs.Hook{
	"prestart":        func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }, //nolint:staticcheck // deprecated, and in use
	"createRuntime":   func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime },
	"createContainer": func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer },
	"startContainer":  func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer },
	"poststart":       func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart },
	"poststop":        func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop },
}

// ParseHost reads a file of hooks.d. It must be what oci-hooks(5) describes as
// the 1.0.0 hook schema; a key that this does not know is an error.
func ParseHost(data []byte) (*HostHook, error) {
	var file struct {
		Version *string          `json:"version"`
		Hook    *json.RawMessage `json:"hook"`
		When    *json.RawMessage `json:"when"`
		Stages  []string         `json:"stages"`
	}
	if err := strict(data, &file, "version", "hook", "when", "stages"); err != nil {
		return nil, err
	}
	switch {
	case file.Version == nil || *file.Version != hostVersion:
		return nil, fmt.Errorf("version: value %s: want %q", quote(file.Version), hostVersion)
	case file.Hook == nil:
		return nil, errors.New("hook: missing; name the program as {\"path\": ...}")
	case file.When == nil:
		return nil, errors.New("when: missing; name a condition, such as {\"always\": true}")
	case len(file.Stages) == 0:
		return nil, fmt.Errorf("stages: missing; name some of %s", strings.Join(stageNames(), ", "))
	}
	for _, s := range file.Stages {
		if stages[s] == nil {
			return nil, fmt.Errorf("stages: value %q: want some of %s; the nearest is %q", s, strings.Join(stageNames(), ", "), config.Nearest(s, stageNames(), 1)[0])
		}
	}
	h := &HostHook{Stages: file.Stages}
	if err := strict(*file.Hook, &h.Hook, "path", "args", "env", "timeout"); err != nil {
		return nil, fmt.Errorf("hook: %w", err)
	}
	if !path.IsAbs(h.Hook.Path) {
		return nil, fmt.Errorf("hook.path: value %q: want an absolute path", h.Hook.Path)
	}
	if h.Hook.Timeout != nil && *h.Hook.Timeout < 1 {
		return nil, fmt.Errorf("hook.timeout: value %d: want 1 second or more", *h.Hook.Timeout)
	}
	return h, h.parseWhen(*file.When)
}

func (h *HostHook) parseWhen(data []byte) error {
	var when struct {
		Always        *bool             `json:"always"`
		HasBindMounts *bool             `json:"hasBindMounts"`
		Annotations   map[string]string `json:"annotations"`
		Commands      []string          `json:"commands"`
	}
	if err := strict(data, &when, "always", "hasBindMounts", "annotations", "commands"); err != nil {
		return fmt.Errorf("when: %w", err)
	}
	h.always, h.hasBindMounts = when.Always, when.HasBindMounts
	if h.always == nil && h.hasBindMounts == nil && len(when.Annotations) == 0 && len(when.Commands) == 0 {
		return errors.New("when: empty; name a condition, such as {\"always\": true}")
	}
	for _, key := range slices.Sorted(maps.Keys(when.Annotations)) {
		k, err := regexp.Compile(key)
		if err != nil {
			return fmt.Errorf("when.annotations: key %q: %w", key, err)
		}
		v, err := regexp.Compile(when.Annotations[key])
		if err != nil {
			return fmt.Errorf("when.annotations: value %q: %w", when.Annotations[key], err)
		}
		h.annotations = append(h.annotations, annotationPattern{k, v})
	}
	for _, c := range when.Commands {
		r, err := regexp.Compile(c)
		if err != nil {
			return fmt.Errorf("when.commands: value %q: %w", c, err)
		}
		h.commands = append(h.commands, r)
	}
	return nil
}

// Matches reports whether all conditions hold that the file names.
func (h *HostHook) Matches(spec *specs.Spec) bool {
	if h.always != nil && !*h.always {
		return false
	}
	if h.hasBindMounts != nil && (!*h.hasBindMounts || !hasBindMounts(spec)) {
		return false
	}
	for _, p := range h.annotations {
		found := false
		for k, v := range spec.Annotations {
			found = found || p.key.MatchString(k) && p.value.MatchString(v)
		}
		if !found {
			return false
		}
	}
	if len(h.commands) == 0 {
		return true
	}
	return spec.Process != nil && len(spec.Process.Args) > 0 &&
		slices.ContainsFunc(h.commands, func(r *regexp.Regexp) bool { return r.MatchString(spec.Process.Args[0]) })
}

// Add puts the hook at the end of its stages.
func (h *HostHook) Add(to *specs.Hooks) {
	for _, s := range h.Stages {
		list := stages[s](to)
		*list = append(slices.Clip(*list), h.Hook)
	}
}

// engineMounts are where engines mount files of their own, which nobody asked
// for.
var engineMounts = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/termination-log"}

func hasBindMounts(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		return bind && !slices.Contains(engineMounts, path.Clean(m.Destination))
	})
}

func stageNames() []string { return slices.Sorted(maps.Keys(stages)) }

// strict reads a JSON object that has no other keys than the known ones.
func strict(data []byte, v any, known ...string) error {
	var fields map[string]json.RawMessage
	if err := decode(data, &fields); err != nil {
		return err
	}
	if fields == nil {
		return errors.New("value null: want an object")
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(known, key) {
			return fmt.Errorf("unknown key %q, the nearest known one is %q", key, config.Nearest(key, known, 1)[0])
		}
	}
	return decode(data, v)
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) && mismatch.Field != "" {
			return fmt.Errorf("%s: value of type %s: want %s", mismatch.Field, mismatch.Value, mismatch.Type)
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

func quote(s *string) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%q", *s)
}

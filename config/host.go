package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// HostFile holds what a host's administrator sets for all containers, as
// TOML: options, and what else may change them.
const HostFile = "/etc/containerd/rich.toml"

// Keys of the host's file that are no options.
const (
	keyLock    = "lock"
	keyChoices = "choices"
	lockAll    = "all"
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// Host is the host's file.
type Host struct {
	// Options are the host's values, which others may change.
	Options Values
	// Lock names the options that nothing else may change; "all" stands
	// for every one that has no choices.
	Lock []string
	// Choices are the values that others may set an option to; the entries
	// for an option that is a list.
	Choices map[string][]string
}

// Load reads the host's file. A file that does not exist says nothing.
func Load(path string) (Host, error) {
	data, err := ReadOwned(path, maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return Host{}, nil
	}
	if err != nil {
		return Host{}, fmt.Errorf("%s: %w", path, err)
	}
	host, err := ParseHost(data)
	if err != nil {
		return Host{}, fmt.Errorf("%s: %w", path, err)
	}
	return host, nil
}

// ParseHost reads what is in the host's file. Any mistake in it is an error:
// a lock with a typing error must not be an open door.
func ParseHost(data []byte) (Host, error) {
	table, lines, err := decode(data)
	if err != nil {
		return Host{}, err
	}
	host := Host{Options: Values{}, Choices: map[string][]string{}}
	scratch := resolver{opts: Default()}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		v := table[key]
		switch key {
		case keyLock:
			if host.Lock, err = parseLock(v); err != nil {
				return Host{}, atLine(lines[key], fmt.Errorf("%s: %w", key, err))
			}
		case keyChoices:
			choices, ok := v.(map[string]any)
			if !ok {
				return Host{}, atLine(lines[key], fmt.Errorf("%s: want a table, with an array of values for each option", key))
			}
			for _, name := range slices.Sorted(maps.Keys(choices)) {
				if host.Choices[name], err = parseChoices(name, choices[name]); err != nil {
					return Host{}, atLine(lines[key+"."+name], fmt.Errorf("%s: %w", key, err))
				}
			}
		default:
			value, err := newValue(v, lines[key])
			if find(key) == nil {
				return Host{}, atLine(lines[key], unknown(key, keyLock, keyChoices))
			}
			if err == nil {
				err = scratch.set(ByHost, key, value, key)
			} else {
				err = fmt.Errorf("%s: %w", key, err)
			}
			if err != nil {
				return Host{}, atLine(lines[key], err)
			}
			host.Options[key] = value
		}
	}
	for name := range host.Choices {
		if slices.Contains(host.Lock, name) {
			return Host{}, atLine(lines[keyChoices+"."+name], fmt.Errorf("option %q is in %s and in %s; remove it from one of them", name, keyLock, keyChoices))
		}
	}
	return host, nil
}

func parseLock(v any) ([]string, error) {
	array, ok := v.([]any)
	if !ok {
		return nil, errors.New("want an array of the names of options")
	}
	names, err := texts(array)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name != lockAll && find(name) == nil {
			return nil, unknown(name, lockAll)
		}
	}
	return names, nil
}

func parseChoices(name string, v any) ([]string, error) {
	opt := find(name)
	if opt == nil {
		return nil, unknown(name)
	}
	array, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: want an array of the values that may be chosen; options themselves go before the table", name)
	}
	values, err := texts(array)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, value := range values {
		scratch := Default()
		if err := opt.apply(&scratch, opt.one(value)); err != nil {
			return nil, fmt.Errorf("%s: value %q: %w", name, value, err)
		}
	}
	return values, nil
}

// permits says why the host's file forbids a change from before to after by
// a value of an option. What is set to what it is is no change.
func (h Host) permits(opt *Option, value Value, before, after Options) error {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	choices, limited := h.Choices[opt.Name]
	if slices.Contains(h.Lock, opt.Name) || !limited && slices.Contains(h.Lock, lockAll) {
		return fmt.Errorf("option %q is locked by %s; remove it, or ask the host's administrator to unlock it", opt.Name, HostFile)
	}
	if !limited {
		return nil
	}
	entries := []Value{value}
	if opt.List {
		list, err := value.list()
		if err != nil {
			return err
		}
		entries = nil
		for _, e := range list {
			entries = append(entries, opt.one(e))
		}
	}
	for _, e := range entries {
		if !slices.ContainsFunc(choices, func(choice string) bool { return opt.same(e, opt.one(choice)) }) {
			return fmt.Errorf("value %q: %s lets option %q be set to %s; choose among these, or ask the host's administrator",
				e, HostFile, opt.Name, allowed(choices))
		}
	}
	return nil
}

func allowed(choices []string) string {
	if len(choices) == 0 {
		return "nothing"
	}
	return strings.Join(choices, ", ")
}

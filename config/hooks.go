package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hook is a program that runs in a container before its CMD is started
// (option prestart) or after that has ended (poststop). Its JSON form is how
// the shim keeps it.
type Hook struct {
	// Path of the program in the container, absolute and clean.
	Path string `json:"path"`
	// Args is argv with argv[0]; never empty.
	Args []string `json:"args"`
	// Env is added to the environment of the CMD, as NAME=VALUE.
	Env []string `json:"env,omitempty"`
	// UID and GID are who the hook runs as.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`
	// Own says that it runs as the CMD's user, with its groups and
	// capabilities and no others.
	Own bool `json:"own,omitempty"`
	// Timeout is how long it may take; 0 stands for Options.HookTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`

	user string // as it was written, empty if it was not
}

// OwnHooks makes hooks of a container's author run as the CMD's user. One that
// names another user or group is an error.
func OwnHooks(hooks []Hook, source string, uid, gid uint32) ([]Hook, error) {
	out := slices.Clone(hooks)
	for i, h := range out {
		_, _, group := strings.Cut(h.user, ":")
		if h.user != "" && (h.UID != uid || group && h.GID != gid) {
			return nil, fmt.Errorf("%s: hook %d: user: value %q: the container's user is \"%d:%d\", and root-init is %q; "+
				"leave the user out, or ask the host's administrator for root-init = %q in %s",
				source, i+1, h.user, uid, gid, RootInitNever, RootInitExplicit, HostFile)
		}
		out[i].Own, out[i].UID, out[i].GID = true, uid, gid
	}
	return out, nil
}

const (
	// maxHooks bounds the hooks of one option.
	maxHooks = 32
	// minHookTimeout and maxHookTimeout bound how long a hook may take.
	minHookTimeout = time.Second
	maxHookTimeout = 10 * time.Minute
)

// hookKeys are those of a hook in JSON: the ones of the OCI runtime
// specification (config.md, POSIX-platform Hooks) and user.
var hookKeys = []string{"args", "env", "path", "timeout", "user"}

// parseHooks reads the value of prestart or poststop: nothing, the path of one
// program, or a JSON array of objects.
func parseHooks(value string) ([]Hook, error) {
	if value == "" {
		return nil, nil
	}
	if !strings.HasPrefix(value, "[") {
		if strings.ContainsAny(value, " \t\r\n") || !path.IsAbs(value) {
			return nil, errors.New(`want an absolute path in the container, such as /opt/hook, or with arguments [{"path": "/opt/hook", "args": ["hook", "now"]}]`)
		}
		p := path.Clean(value)
		return []Hook{{Path: p, Args: []string{p}}}, nil
	}
	var list []map[string]json.RawMessage
	d := json.NewDecoder(strings.NewReader(value))
	err := d.Decode(&list)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the array")
		}
	}
	if err != nil {
		return nil, fmt.Errorf(`want a JSON array of objects, such as [{"path": "/opt/hook", "timeout": 10}]: %w`, err)
	}
	if len(list) > maxHooks {
		return nil, fmt.Errorf("%d hooks; want at most %d", len(list), maxHooks)
	}
	var out []Hook
	for i, fields := range list {
		h, err := parseHook(fields)
		if err != nil {
			return nil, fmt.Errorf("hook %d: %w", i+1, err)
		}
		out = append(out, h)
	}
	return out, nil
}

func parseHook(fields map[string]json.RawMessage) (Hook, error) {
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(hookKeys, key) {
			return Hook{}, fmt.Errorf("unknown key %q, the nearest known one is %q", key, Nearest(key, hookKeys, 1)[0])
		}
	}
	var h Hook
	if err := field(fields, "path", "a string", &h.Path); err != nil {
		return Hook{}, err
	}
	if !path.IsAbs(h.Path) || strings.ContainsRune(h.Path, 0) {
		return Hook{}, fmt.Errorf("path: value %q: want an absolute path in the container, such as /opt/hook", h.Path)
	}
	h.Path = path.Clean(h.Path)
	if err := field(fields, "args", "an array of strings", &h.Args); err != nil {
		return Hook{}, err
	}
	if h.Args == nil {
		h.Args = []string{h.Path}
	}
	if len(h.Args) == 0 {
		return Hook{}, errors.New("args: empty; begin with the program's own name, as argv[0], or leave the key out")
	}
	if err := field(fields, "env", "an array of strings", &h.Env); err != nil {
		return Hook{}, err
	}
	for _, kv := range h.Env {
		if strings.IndexByte(kv, '=') < 1 {
			return Hook{}, fmt.Errorf("env: value %q: want NAME=VALUE", kv)
		}
	}
	for _, s := range slices.Concat(h.Args, h.Env) {
		if strings.ContainsRune(s, 0) {
			return Hook{}, fmt.Errorf("args or env: value %q: want no NUL byte", s)
		}
	}
	seconds := minHookTimeout.Seconds()
	if err := field(fields, "timeout", "a number of seconds", &seconds); err != nil {
		return Hook{}, err
	}
	if seconds < minHookTimeout.Seconds() || seconds > maxHookTimeout.Seconds() {
		return Hook{}, fmt.Errorf("timeout: value %s: want %v to %v seconds", fields["timeout"], minHookTimeout.Seconds(), maxHookTimeout.Seconds())
	}
	if fields["timeout"] != nil {
		h.Timeout = time.Duration(seconds * float64(time.Second))
	}
	var user string
	if err := field(fields, "user", "a string", &user); err != nil {
		return Hook{}, err
	}
	if fields["user"] == nil {
		return h, nil
	}
	h.user = user
	uid, gid, both := strings.Cut(user, ":")
	var err error
	if h.UID, err = parseID(uid); err == nil && both {
		h.GID, err = parseID(gid)
	}
	if err != nil {
		return Hook{}, fmt.Errorf(`user: value %q: want numbers as "UID" or "UID:GID", such as "1000:1000"`, user)
	}
	return h, nil
}

// field reads a key that may be missing.
func field(fields map[string]json.RawMessage, key, want string, v any) error {
	raw, ok := fields[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil || bytes.Equal(raw, []byte("null")) {
		return fmt.Errorf("%s: value %s: want %s", key, raw, want)
	}
	return nil
}

// parseID reads a user's or a group's number. The greatest stands for none
// (chown(2)).
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errors.New("want a number")
	}
	return uint32(n), nil
}

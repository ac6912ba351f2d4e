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

// Hook is a program that runs in a container before its command is started
// (option prestart) or after that has ended (poststop). Its JSON form is how
// the shim keeps it.
type Hook struct {
	// Path of the program in the container, absolute and clean.
	Path string `json:"path"`
	// Args is argv with argv[0]; never empty.
	Args []string `json:"args"`
	// Env is added to the environment of the command, as NAME=VALUE.
	Env []string `json:"env,omitempty"`
	// UID and GID are who the hook runs as.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`
	// Own says that it runs as the command's user, with its groups and
	// capabilities and no others.
	Own bool `json:"own,omitempty"`
	// Timeout is how long it may take; 0 stands for Options.HookTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`

	user string // as it was written, empty if it was not
}

// OwnHooks makes hooks of a container's author run as the command's user. One that
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
		if strings.ContainsAny(value, " \t\r\n\x00") || !path.IsAbs(value) {
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

// hookFields are the keys of a hook in JSON with their values.
type hookFields map[string]json.RawMessage

// parseHook reads a hook. The first key that is wrong is the error.
func parseHook(fields hookFields) (Hook, error) {
	if err := fields.checkKeys(); err != nil {
		return Hook{}, err
	}
	var h Hook
	for _, read := range []func(hookFields) error{h.readPath, h.readArgs, h.readEnv, h.refuseNUL, h.readTimeout, h.readUser} {
		if err := read(fields); err != nil {
			return Hook{}, err
		}
	}
	return h, nil
}

func (fields hookFields) checkKeys() error {
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(hookKeys, key) {
			return fmt.Errorf("unknown key %q, the nearest known one is %q", key, Nearest(key, hookKeys, 1)[0])
		}
	}
	return nil
}

func (h *Hook) readPath(fields hookFields) error {
	if err := fields.read("path", "a string", &h.Path); err != nil {
		return err
	}
	if !path.IsAbs(h.Path) || strings.ContainsRune(h.Path, 0) {
		return fmt.Errorf("path: value %q: want an absolute path in the container, such as /opt/hook", h.Path)
	}
	h.Path = path.Clean(h.Path)
	return nil
}

func (h *Hook) readArgs(fields hookFields) error {
	if err := fields.read("args", "an array of strings", &h.Args); err != nil {
		return err
	}
	if h.Args == nil {
		h.Args = []string{h.Path}
	}
	if len(h.Args) == 0 {
		return errors.New("args: empty; begin with the program's own name, as argv[0], or leave the key out")
	}
	return nil
}

func (h *Hook) readEnv(fields hookFields) error {
	if err := fields.read("env", "an array of strings", &h.Env); err != nil {
		return err
	}
	for _, kv := range h.Env {
		if strings.IndexByte(kv, '=') < 1 {
			return fmt.Errorf("env: value %q: want NAME=VALUE", kv)
		}
	}
	return nil
}

// refuseNUL refuses what execve(2) would cut off.
func (h *Hook) refuseNUL(hookFields) error {
	for _, s := range slices.Concat(h.Args, h.Env) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("args or env: value %q: want no NUL byte", s)
		}
	}
	return nil
}

func (h *Hook) readTimeout(fields hookFields) error {
	seconds := minHookTimeout.Seconds()
	if err := fields.read("timeout", "a number of seconds", &seconds); err != nil {
		return err
	}
	if seconds < minHookTimeout.Seconds() || seconds > maxHookTimeout.Seconds() {
		return fmt.Errorf("timeout: value %s: want %v to %v seconds", fields["timeout"], minHookTimeout.Seconds(), maxHookTimeout.Seconds())
	}
	if fields["timeout"] != nil {
		h.Timeout = time.Duration(seconds * float64(time.Second))
	}
	return nil
}

func (h *Hook) readUser(fields hookFields) error {
	if err := fields.read("user", "a string", &h.user); err != nil || fields["user"] == nil {
		return err
	}
	uid, gid, both := strings.Cut(h.user, ":")
	var err error
	if h.UID, err = parseID(uid); err == nil && both {
		h.GID, err = parseID(gid)
	}
	if err != nil {
		return fmt.Errorf(`user: value %q: want numbers as "UID" or "UID:GID", such as "1000:1000"`, h.user)
	}
	return nil
}

// read reads a key that may be missing.
func (fields hookFields) read(key, want string, v any) error {
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

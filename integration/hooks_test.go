package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hook is an entry of the options prestart and poststop.
type hook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout float64  `json:"timeout,omitempty"`
	User    string   `json:"user,omitempty"`
}

// withHooks sets one of the two options.
func withHooks(t testing.TB, option string, list ...hook) taskOption {
	t.Helper()
	value, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return withRich(option, string(value))
}

// hookInits are the kinds of pid 1 that hooks differ for.
var hookInits = []variant{
	systemdBookworm,
	dumbInit,
	plain,
	{"busybox", imageInitAlpine, "sbin-init"},
}

// script is a shell script as a hook.
func script(lines ...string) hook {
	return hook{Path: "/bin/sh", Args: []string{"sh", "-ec", strings.Join(lines, "\n")}}
}

// notes is a folder of the host that a container has as /notes.
type notes struct {
	t   testing.TB
	dir string
}

func newNotes(t testing.TB) notes { return notes{t, t.TempDir()} }

func (n notes) mount() taskOption { return withBind(n.dir, "/notes", "rbind", "rw") }

// read returns a file's text, empty if there is none.
func (n notes) read(name string) string {
	content, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	return string(content)
}

func (n notes) want(name, want string) {
	n.t.Helper()
	if got := n.read(name); got != want {
		n.t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

// A prestart hook is done before the CMD runs, and a poststop hook knows how that ended.
func TestHooks(t *testing.T) {
	t.Parallel()
	forEach(t, hookInits, func(t *testing.T, v variant) {
		n := newNotes(t)
		report := `echo "$RICH_HOOK $RICH_CONTAINER $RICH_EXIT_CODE $RICH_EXIT_SIGNAL $RICH_EXIT_REASON" >>/notes/log`
		run := startTask(t, v.image, v.with(n.mount(),
			withHooks(t, "prestart", script(`echo prestart >>/notes/log`), script(`echo second $1 "$FOO" $(id -u) $(pwd) >>/notes/log`)),
			withHooks(t, "poststop", script(report), script(`echo last >>/notes/log`)),
			withEnv("FOO=a b"),
			withArgs("sh", "-c", "echo cmd >>/notes/log; exit 7"))...)
		if code := run.Wait(runLimit); code != 7 {
			t.Errorf("exit status %d, want 7", code)
		}
		run.Delete()
		n.want("log", fmt.Sprintf("prestart\nsecond a b 0 /\ncmd\npoststop %s 7  exit\nlast\n", run.ID))
	})
}

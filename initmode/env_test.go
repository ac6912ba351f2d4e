package initmode

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everyByte holds all bytes that an environment can.
func everyByte() string {
	var b []byte
	for c := 1; c < 256; c++ {
		b = append(b, byte(c), '\'', byte(c))
	}
	return string(b)
}

// Shells read back what was written, and run nothing of it.
func TestB5ShellEnv(t *testing.T) {
	env := []string{
		"PATH=/opt/jdk/bin:/usr/bin:/bin", "MSG=it's $5 \"x\" `touch pwned` $(touch pwned) \\", "NEXT=a\nb\n\n", "EMPTY=", "QUOTES='''", "CUT=\xc3",
		"ALL=" + everyByte(), "TWICE=1", "TWICE=2", "UID=7", "PPID=8", "OPTIND=x", "SHELLOPTS=xtrace", "RANDOM=y",
		"IFS=/", "a.b=dotted", "1x=digit", "x;touch pwned=1", "=none", "HOME=/data", "SHELL=/kept",
	}
	want := []string{
		env[0], env[1], env[2], "EMPTY=", "QUOTES='''", "CUT=\xc3", "ALL=" + everyByte(), "TWICE=2", "HOME=/root", "SHELL=/kept",
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, shellEnvFile), shellEnv(environ(env)), 0o600); err != nil {
		t.Fatal(err)
	}
	// Bash sets SHELL itself.
	for name, shell := range map[string][]string{
		"sh":               {"env", "sh"},
		"sh, strict":       {"env", "sh", "-eu"},
		"bash":             {"env", "SHELL=/kept", "bash", "--norc"},
		"bash as sh":       {"env", "SHELL=/kept", "bash", "--posix"},
		"bash, strict":     {"env", "SHELL=/kept", "bash", "-eu"},
		"bash with locale": {"env", "SHELL=/kept", "LC_ALL=C.UTF-8", "bash"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(slices.Clone(shell), "-c", ". ./"+shellEnvFile+"; exec /usr/bin/env -0")
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root"}
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			if err != nil || said.Len() != 0 {
				t.Fatalf("%v: %s", err, said.String())
			}
			got := slices.DeleteFunc(strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), func(kv string) bool {
				name, _, _ := strings.Cut(kv, "=")
				return name == "LC_ALL" || name == "PWD" || name == "OLDPWD" || name == "SHLVL" || name == "_"
			})
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
				t.Errorf("got %q\nwant %q", got, want)
			}
		})
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("something was run: %v, %v", entries, err)
	}
}

// Read by the rules of POSIX (Shell Command Language, 2.2.2), the code is
// nothing but assignments of the values.
func FuzzShellEnv(f *testing.F) {
	f.Add("A", "it's", "B", "\n'")
	f.Add("HOME", "", "a b", "$(x)")
	f.Add("A", "'", "A", "''\\")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		if strings.ContainsRune(name1+name2, '=') || strings.ContainsRune(name1+value1+name2+value2, 0) {
			return
		}
		env := environ([]string{name1 + "=" + value1, name2 + "=" + value2})
		want := map[string]string{}
		for _, kv := range env {
			name, value, _ := strings.Cut(strings.TrimSuffix(kv, "\x00"), "=")
			if shellName().MatchString(name) && !shellOwn[name] {
				want[name] = value
			}
		}
		code := string(shellEnv(env))
		for code != "" {
			if rest, ok := strings.CutPrefix(code, `[ -n "${`); ok {
				_, code, _ = strings.Cut(rest, " || ")
			}
			rest, ok := strings.CutPrefix(code, "export ")
			name, quoted, _ := strings.Cut(rest, "=")
			value, left := unquote(quoted)
			if have, known := want[name]; !ok || !known || have != value || !strings.HasPrefix(left, "\n") {
				t.Fatalf("%q is no assignment of %q", code, want)
			}
			delete(want, name)
			code = left[1:]
		}
		if len(want) > 0 {
			t.Errorf("left out: %q", want)
		}
	})
}

// unquote reads a word of single quotes and escaped quotes.
func unquote(code string) (word, rest string) {
	for code != "" {
		switch {
		case strings.HasPrefix(code, `\'`):
			word += "'"
			code = code[2:]
		case code[0] == '\'':
			var part string
			part, code, _ = strings.Cut(code[1:], "'")
			word += part
		default:
			return word, code
		}
	}
	return word, code
}

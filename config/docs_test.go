package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

var update = flag.Bool("update", false, "write the table of options in docs/configuration.md")

const (
	docsFile  = "../docs/configuration.md"
	docsBegin = "<!-- options -->\n"
	docsEnd   = "<!-- end of options -->\n"
)

func docsTable() string {
	var b strings.Builder
	b.WriteString("| Option | Values | Default | Set by | Meaning |\n|---|---|---|---|---|\n")
	for _, o := range Table {
		b.WriteString("| `" + o.Name + "` | " + o.Values + " | " + o.Default + " | " + o.Where.String() + " | " + o.Meaning + " |\n")
	}
	return b.String()
}

// The table of options in the documentation is the one of the code.
func TestDocsTable(t *testing.T) {
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), docsBegin)
	have, after, ok2 := strings.Cut(rest, docsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s: no line %q followed by %q", docsFile, docsBegin, docsEnd)
	}
	want := docsTable()
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date; run: go test ./config -run TestDocsTable -update", docsFile)
	}
	if err := os.WriteFile(docsFile, []byte(before+docsBegin+want+docsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every ```toml example of the documentation is the host's file, or a
// configuration of containerd whose handlers have a table of our options.
func TestDocsExamples(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?sm)^```toml example\n(.*?)^```$")
	found := 0
	for _, file := range append(files, "../README.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllStringSubmatch(string(data), -1) {
			found++
			for _, src := range exampleSources(t, file, m[1]) {
				if _, err := Resolve(src); err != nil {
					t.Errorf("%s: %v\n%s", file, err, m[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no examples found")
	}
}

// exampleSources returns what the tables of one example set.
func exampleSources(t *testing.T, file, text string) []Sources {
	t.Helper()
	var example struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Options struct {
						Rich map[string]any `toml:"rich"`
					} `toml:"options"`
				} `toml:"runtimes"`
			} `toml:"containerd"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal([]byte(text), &example); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, text)
	}
	if example.Plugins == nil {
		host, err := ParseHost([]byte(text))
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
		return []Sources{{Host: host}}
	}
	var out []Sources
	for _, plugin := range example.Plugins {
		for _, runtime := range plugin.Containerd.Runtimes {
			values, err := NewValues(runtime.Options.Rich)
			if err != nil {
				t.Errorf("%s: %v\n%s", file, err, text)
			}
			out = append(out, Sources{Runtime: values})
		}
	}
	return out
}

// Every option says all that the documentation tells of it.
func TestTable(t *testing.T) {
	for i, o := range Table {
		if o.Name == "" || o.Values == "" || o.Default == "" || o.Meaning == "" || o.Where == 0 || (o.set == nil) == (o.setList == nil) || o.List != (o.setList != nil) {
			t.Errorf("%+v: incomplete", o)
		}
		if i > 0 && Table[i-1].Name >= o.Name {
			t.Errorf("%q is not in order", o.Name)
		}
		if o.Name == keyLock || o.Name == keyChoices || o.Name == lockAll {
			t.Errorf("%q means something else in the host's file", o.Name)
		}
	}
}

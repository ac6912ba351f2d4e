package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	b.WriteString("| Option | Values | Default | Meaning |\n|---|---|---|---|\n")
	for _, o := range Table {
		b.WriteString("| `" + o.Name + "` | " + o.Values + " | " + o.Default + " | " + o.Meaning + " |\n")
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
			for _, values := range exampleOptions(t, file, m[1]) {
				if _, err := Resolve(Sources{Host: values}); err != nil {
					t.Errorf("%s: %v\n%s", file, err, m[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no examples found")
	}
}

// exampleOptions returns the tables of options of one example.
func exampleOptions(t *testing.T, file, text string) []map[string]string {
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
	bodies := [][]byte{[]byte(text)}
	if example.Plugins != nil {
		bodies = nil
		for _, plugin := range example.Plugins {
			for _, runtime := range plugin.Containerd.Runtimes {
				body, err := toml.Marshal(runtime.Options.Rich)
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, body)
			}
		}
	}
	var out []map[string]string
	for _, body := range bodies {
		values, err := Parse(body)
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
		out = append(out, values)
	}
	return slices.Clip(out)
}

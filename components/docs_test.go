package components

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of keys in docs/components.md")

const (
	docsFile  = "../docs/components.md"
	docsBegin = "<!-- keys -->\n"
	docsEnd   = "<!-- end of keys -->\n"
)

func docsTable() string {
	var b strings.Builder
	b.WriteString("| Key | Values | Default | Meaning |\n|---|---|---|---|\n")
	for _, k := range Table {
		byDefault := k.Default
		if byDefault == "" {
			byDefault = "must be given"
		}
		b.WriteString("| `" + k.Name + "` | " + k.Values + " | " + byDefault + " | " + k.Meaning + " |\n")
	}
	return b.String()
}

// The table of keys in the documentation is the one of the code.
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
		t.Fatalf("%s is out of date; run: go test ./components -run TestDocsTable -update", docsFile)
	}
	if err := os.WriteFile(docsFile, []byte(before+docsBegin+want+docsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every ```toml component of the documentation is a definition.
func TestDocsExamples(t *testing.T) {
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?sm)^```toml component\n(.*?)^```$").FindAllStringSubmatch(string(data), -1)
	for _, m := range blocks {
		if _, err := Parse("example", []byte(m[1])); err != nil {
			t.Errorf("%v\n%s", err, m[1])
		}
	}
	if len(blocks) == 0 {
		t.Error("no examples found")
	}
}

package shim

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	modulePath       = "containerd-shim-rich/"
	architectureFile = "../docs/architecture.md"
)

// importsOf are the imports of a folder's product code.
func importsOf(t *testing.T, dir string) (ours, others []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if own, ok := strings.CutPrefix(path, modulePath); ok {
				ours = append(ours, own)
			} else {
				others = append(others, path)
			}
		}
	}
	slices.Sort(ours)
	slices.Sort(others)
	return slices.Compact(ours), slices.Compact(others)
}

// goFolders are the folders with product code.
func goFolders(t *testing.T) (dirs []string) {
	t.Helper()
	for _, pattern := range []string{"../*/*.go", "../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			dir := strings.TrimPrefix(filepath.Dir(file), "../")
			if !strings.HasSuffix(file, "_test.go") && dir != "integration" {
				dirs = append(dirs, dir)
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// The table of folders says what imports what, and only that.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile(architectureFile)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| Folder | Its one job | Imports of ours |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table of folders")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	name := regexp.MustCompile("`([^`]+)`")
	var listed []string
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		dir := name.FindStringSubmatch(cells[1])[1]
		listed = append(listed, dir)
		var want []string
		for _, m := range name.FindAllStringSubmatch(cells[3], -1) {
			want = append(want, m[1])
		}
		got, _ := importsOf(t, dir)
		if strings.Contains(cells[3], "all below") {
			continue
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s imports %q, the table says %q", dir, got, want)
		}
		for _, above := range got {
			if slices.Contains(listed, above) && !strings.HasPrefix(dir, "cmd/") {
				t.Errorf("%s imports %s, which is above it", dir, above)
			}
		}
	}
	dirs := goFolders(t)
	slices.Sort(listed)
	if !slices.Equal(listed, dirs) {
		t.Errorf("the table lists %q, there are %q", listed, dirs)
	}
}

// The life of the command is decided without looking at anything.
func TestLifeIsPure(t *testing.T) {
	ours, others := importsOf(t, "life")
	for _, path := range slices.Concat(ours, others) {
		for _, not := range []string{"shim", "os", "io", "net", "context", "github.com/opencontainers/runc"} {
			if path == not || strings.HasPrefix(path, not+"/") {
				t.Errorf("package life imports %s", path)
			}
		}
	}
}

// What the page names is there.
func TestArchitectureNames(t *testing.T) {
	text, err := os.ReadFile(architectureFile)
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, dir := range goFolders(t) {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(content)
		}
	}
	all := code.String()
	for _, m := range regexp.MustCompile("`((?:[a-z]+\\.)*[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1) {
		last := m[1][strings.LastIndex(m[1], ".")+1:]
		if strings.HasSuffix(m[1], ".json") || strings.HasSuffix(m[1], ".log") {
			last = m[1]
		}
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(last) + `\b`).MatchString(all) {
			if _, err := os.Stat("../" + last); err != nil {
				t.Errorf("%s is nowhere", m[1])
			}
		}
	}
}

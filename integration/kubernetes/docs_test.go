package kubernetes

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docsBlock is an example of docs/kubernetes.md. In it a line after "$ " is a command, a line after "> " continues it, and
// all others are the output, where "..." stands for any text.
var docsBlock = regexp.MustCompile("(?sm)^```console kubernetes\n(.*?)^```$")

// TestDocs runs docs/kubernetes.md from its first command to its last, as somebody would who reads it.
func TestDocs(t *testing.T) {
	content, err := os.ReadFile(treePath("docs/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := docsBlock.FindAllStringSubmatch(string(content), -1)
	if len(blocks) == 0 {
		t.Fatal("no example is marked")
	}
	for _, block := range blocks {
		var commands, printed strings.Builder
		for line := range strings.Lines(block[1]) {
			if len(line) > 2 && (line[:2] == "$ " || line[:2] == "> ") {
				commands.WriteString(line[2:])
			} else {
				printed.WriteString(line)
			}
		}
		command := exec.Command("bash", "-c", commands.String())
		command.Dir = treePath("")
		command.Env = append(os.Environ(), "KUBECONFIG="+node.kubeconfig(), "PATH="+filepath.Dir(program("kubectl"))+":"+os.Getenv("PATH"))
		text, err := runWithin(podLimit, command)
		pattern := strings.ReplaceAll(regexp.QuoteMeta(printed.String()), regexp.QuoteMeta("..."), ".*")
		if !regexp.MustCompile("(?s)^" + pattern + "$").MatchString(text) {
			t.Fatalf("the example\n%s\nprinted (%v)\n%s", block[1], err, text)
		}
	}
}

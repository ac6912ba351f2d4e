package integration

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
)

// docsLimit bounds one example.
const docsLimit = 2 * time.Minute

// hostConfig is where the host's file is.
const hostConfig = "/etc/containerd/"

// docsBlock is an example of the documentation. In it a line after "$ " is a command, a line after "> " continues it,
// and all others are the output, where "..." stands for any text.
var docsBlock = regexp.MustCompile("(?sm)^```console example\n(.*?)^```$")

// TestDocsExamples runs every example of README.md and docs/ as it is written there.
func TestDocsExamples(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "../README.md")
	image := regexp.MustCompile(`localhost/[a-z-]+:latest`)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range docsBlock.FindAllStringSubmatch(string(content), -1) {
			t.Run(filepath.Base(file), func(t *testing.T) {
				for _, name := range image.FindAllString(block[1], -1) {
					private.image(t, name)
				}
				runExample(t, block[1])
			})
		}
	}
}

func runExample(t *testing.T, text string) {
	script, want := parseExample(text)
	if strings.Contains(script, hostConfig) {
		// The example is about the host's file: a shim of its own sees it.
		h := newHostFiles(t, map[string]string{hostConfig + "rich.toml": ""})
		script = strings.NewReplacer(hostConfig, h.Path(hostConfig)+"/", "io.containerd.rich.v2", h.Runtime).Replace(script)
	}
	compare := snapshotHost(t)
	ctx, cancel := context.WithTimeout(context.Background(), docsLimit)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-c", script)
	command.Dir = t.TempDir()
	command.WaitDelay = time.Second
	command.Env = append(os.Environ(),
		"PATH="+buildPath("tools")+":"+os.Getenv("PATH"),
		"CONTAINERD_ADDRESS="+private.Address(),
		"CONTAINERD_NAMESPACE="+testNamespace)
	output, err := command.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("not ended after %v", docsLimit)
	}
	got := withoutNotices(string(output))
	if !want.MatchString(got) {
		t.Errorf("the example\n%s\nprinted (%v)\n%s", text, err, got)
	}
	if t.Failed() {
		private.removeContainers(t)
	}
	compare()
}

// parseExample returns the commands of an example, and what they are to print.
func parseExample(text string) (script string, output *regexp.Regexp) {
	var commands, printed strings.Builder
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			command, ok = strings.CutPrefix(line, "> ")
		}
		if ok {
			commands.WriteString(command)
		} else {
			printed.WriteString(line)
		}
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(printed.String()), regexp.QuoteMeta("..."), ".*")
	return commands.String(), regexp.MustCompile("(?s)^" + pattern + "$")
}

// withoutNotices removes what every ctr says on a host with cgroup v1.
func withoutNotices(output string) string {
	var kept strings.Builder
	for line := range strings.Lines(output) {
		if !strings.Contains(line, `msg="DEPRECATION: `) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// removeContainers removes what an example that failed may have left, so that it hurts no other test.
func (d *daemon) removeContainers(t testing.TB) {
	ctx, cancel := d.within(callLimit)
	defer cancel()
	containers, err := d.Client.Containers(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers {
		if task, err := c.Task(ctx, nil); err == nil {
			_, _ = task.Delete(ctx, containerd.WithProcessKill)
		}
		_ = c.Delete(ctx, containerd.WithSnapshotCleanup)
	}
}

// Each test that the documentation names is there.
func TestDocsNameTests(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../CONTRIBUTING.md")
	tests := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (path == "../build" || path == "../.git"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		content, err := os.ReadFile(path)
		for _, found := range function.FindAllStringSubmatch(string(content), -1) {
			tests[found[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	name := regexp.MustCompile("`((?:Test|Fuzz)\\w+)")
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range name.FindAllStringSubmatch(string(content), -1) {
			named++
			if !tests[found[1]] {
				t.Errorf("%s names %s, which there is not", filepath.Base(page), found[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

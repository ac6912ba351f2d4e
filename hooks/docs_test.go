package hooks

import (
	"os"
	"regexp"
	"testing"
)

// Every ```json example of the documentation is a file of hooks.d.
func TestDocsExamples(t *testing.T) {
	data, err := os.ReadFile("../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?sm)^```json example\n(.*?)^```$").FindAllSubmatch(data, -1)
	if len(examples) == 0 {
		t.Error("no examples found")
	}
	for _, m := range examples {
		if _, err := ParseHost(m[1]); err != nil {
			t.Errorf("%v\n%s", err, m[1])
		}
	}
}

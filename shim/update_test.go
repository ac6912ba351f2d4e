package shim

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func parseResources(t *testing.T, text string) (r *specs.LinuxResources) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func marshalJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMergeResources(t *testing.T) {
	for _, c := range []struct {
		name, have, change, want string
	}{
		{"nothing", `{"memory":{"limit":1}}`, ``, `{"memory":{"limit":1}}`},
		{"to nothing", `null`, `{"pids":{"limit":5}}`, `{"pids":{"limit":5}}`},
		{"the rest stays", `{"memory":{"limit":1,"swap":2},"cpu":{"shares":3,"cpus":"0"}}`, `{"memory":{"limit":2},"cpu":{"cpus":"1"}}`, `{"memory":{"limit":2,"swap":2},"cpu":{"shares":3,"cpus":"1"}}`},
		{"unified", `{"unified":{"memory.high":"1","pids.max":"2"}}`, `{"unified":{"memory.high":"3"}}`, `{"unified":{"memory.high":"3","pids.max":"2"}}`},

		{"no limit, and no swap's", `{"memory":{"limit":1,"swap":2,"reservation":3}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1,"reservation":3}}`},
		{"no limit, but a swap's", `{"memory":{"limit":1,"swap":2}}`, `{"memory":{"limit":-1,"swap":9}}`, `{"memory":{"limit":-1,"swap":9}}`},
		{"a limit again", `{"memory":{"limit":-1}}`, `{"memory":{"limit":4}}`, `{"memory":{"limit":4}}`},
		{"no limit of before", `{"memory":{"limit":-1,"swap":9}}`, `{"memory":{"reservation":3}}`, `{"memory":{"limit":-1,"swap":9,"reservation":3}}`},

		{"idle", `{"cpu":{"shares":3,"cpus":"0"}}`, `{"cpu":{"idle":1}}`, `{"cpu":{"cpus":"0","idle":1}}`},
		{"not idle", `{"cpu":{"shares":3}}`, `{"cpu":{"idle":0}}`, `{"cpu":{"idle":0}}`},
		{"idle no more, with shares", `{"cpu":{"idle":1}}`, `{"cpu":{"idle":0,"shares":3}}`, `{"cpu":{"shares":3,"idle":0}}`},
		{"idle of before", `{"cpu":{"shares":3,"idle":0}}`, `{"cpu":{"cpus":"0"}}`, `{"cpu":{"shares":3,"cpus":"0","idle":0}}`},
	} {
		resources := parseResources(t, c.have)
		got, err := mergeResources(resources, []byte(c.change))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got, want := marshalJSON(t, got), marshalJSON(t, parseResources(t, c.want)); got != want {
			t.Errorf("%s: got %s, want %s", c.name, got, want)
		}
		// What the container has is needed again when the change is refused.
		if got, want := marshalJSON(t, resources), marshalJSON(t, parseResources(t, c.have)); got != want {
			t.Errorf("%s: what was there became %s, it was %s", c.name, got, want)
		}
	}
	for _, change := range []string{`{`, `{"memory":{"limit":"much"}}`, `[]`} {
		if got, err := mergeResources(nil, []byte(change)); err == nil {
			t.Errorf("%s was taken: %+v", change, got)
		}
	}
}

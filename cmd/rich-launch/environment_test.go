package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		in, want []string
		path     string
	}{
		"the last one counts": {[]string{"A=1", "B=2", "A=3", "HOME=/h", "C=4"}, []string{"B=2", "A=3", "HOME=/h", "C=4"}, ""},
		"an empty last one":   {[]string{"A=1", "A=", "HOME=/h"}, []string{"A=", "HOME=/h"}, ""},
		"path":                {[]string{"PATH=/a", "HOME=/h", "PATH=/b:/c"}, []string{"HOME=/h", "PATH=/b:/c"}, "/b:/c"},
		"home at the end":     {[]string{"A=1"}, []string{"A=1", "HOME=/"}, ""},
		"home, empty":         {[]string{"HOME=/x", "HOME=", "A=1"}, []string{"A=1", "HOME=/"}, ""},
		"home, not empty":     {[]string{"HOME=", "HOME=/x"}, []string{"HOME=/x"}, ""},
		"any bytes":           {[]string{"a b\n=\xff=\n", "HOME=/h"}, []string{"a b\n=\xff=\n", "HOME=/h"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, path, err := environment(test.in, 1000660000)
			if err != nil || !slices.Equal(got, test.want) || path != test.path {
				t.Errorf("got %q, %q, %v, want %q, %q", got, path, err, test.want, test.path)
			}
		})
	}
	for _, entry := range []string{"", "A", "=A"} {
		if got, _, err := environment([]string{entry}, 0); err == nil {
			t.Errorf("%q: got %q and no error", entry, got)
		}
	}
}

func TestHomeOf(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	text := "# comment\n\nroot:x:0:0:root:/root:/bin/sh\n  first:x:7:7::/first:/bin/sh \nsecond:x:7:7::/second:\nshort:x:8\nempty:x:9:9:::\nbad:x:y:1::/bad:\nhuge:x:99999999999999999999:1::/huge:\n"
	if err := os.WriteFile(passwd, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// A line without a number counts as root's: the comment is the first.
	for uid, want := range map[uint32]string{0: "", 7: "/first", 8: "", 9: "", 10: "/", 4294967295: "/"} {
		if got := homeOf(uid, passwd); got != want {
			t.Errorf("uid %d: %q, want %q", uid, got, want)
		}
	}
	if got := homeOf(7, passwd+".missing"); got != "/" {
		t.Errorf("without a file: %q", got)
	}
}

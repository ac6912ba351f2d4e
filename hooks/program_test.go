package hooks

import (
	"errors"
	"strings"
	"testing"
)

func TestInterpreter(t *testing.T) {
	for head, want := range map[string]struct {
		path string
		err  error
	}{
		"\x7fELF\x02\x01":                       {"", nil},
		"#!/bin/sh\necho":                       {"/bin/sh", nil},
		"#! /usr/bin/env -S sh -e\n":            {"/usr/bin/env", nil},
		"#!\t bin/sh\n":                         {"/bin/sh", nil},
		"#!/bin/sh":                             {"/bin/sh", nil},
		"#!/bin/sh\r\necho\r\n":                 {"", errCRLF},
		"#!/bin/sh -e\r\n":                      {"", errCRLF},
		"#!\n/bin/sh":                           {"", errNoName},
		"#! ":                                   {"", errNoName},
		"":                                      {"", errEmpty},
		"echo\n":                                {"", errFormat},
		"\xef\xbb\xbf#!/bin/sh\n":               {"", errBOM},
		"#!/" + strings.Repeat("x", 400) + "\n": {"", errTooLong},
		"#!/" + strings.Repeat("x", 240) + "\necho": {"/" + strings.Repeat("x", 240), nil},
	} {
		got, err := Interpreter([]byte(head))
		if got != want.path || !errors.Is(err, want.err) {
			t.Errorf("%q: got %q, %v, want %+v", head, got, err, want)
		}
	}
}

func FuzzInterpreter(f *testing.F) {
	f.Add([]byte("#!/bin/sh -e\n"))
	f.Add([]byte("#!\r"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if name, err := Interpreter(head); err == nil && name != "" && (name[0] != '/' || strings.ContainsAny(name, "\n \t")) {
			t.Errorf("%q gave %q", head, name)
		}
	})
}

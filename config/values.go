package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxEntries bounds the entries of a list.
const maxEntries = 64

// Value is an option as somebody wrote it: a text, or in a file also an array
// of texts.
type Value struct {
	text  string
	array []string // not nil for an array
	line  int      // in its file; 0 if that is not known
}

// Text is a value that is no array.
func Text(s string) Value { return Value{text: s} }

// Values are options by their names.
type Values map[string]Value

// String is for messages.
func (v Value) String() string {
	if v.array != nil {
		return strings.Join(v.array, ", ")
	}
	return strings.TrimSpace(v.text)
}

// single is the value of an option that takes one.
func (v Value) single() (string, error) {
	if v.array != nil {
		return "", errors.New("want one value and no array")
	}
	return strings.TrimSpace(v.text), nil
}

// list are the entries of an option that takes many: those of an array, or
// what commas and white space separate. Each counts once.
func (v Value) list() ([]string, error) {
	entries := v.array
	if entries == nil {
		entries = strings.FieldsFunc(v.text, separates)
	}
	var out []string
	for _, e := range entries {
		if e == "" || strings.ContainsFunc(e, separates) {
			return nil, fmt.Errorf("entry %q: want an entry without spaces and commas", e)
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	if len(out) > maxEntries {
		return nil, fmt.Errorf("want at most %d entries", maxEntries)
	}
	return out, nil
}

func separates(r rune) bool { return r == ',' || unicode.IsSpace(r) }

// NewValues are the options in a table of TOML. Integers and booleans are
// taken as their text.
func NewValues(table map[string]any) (Values, error) {
	if len(table) == 0 {
		return nil, nil
	}
	values := make(Values, len(table))
	for key, v := range table {
		value, err := newValue(v, 0)
		if err != nil {
			return nil, fmt.Errorf("option %q: %w", key, err)
		}
		values[key] = value
	}
	return values, nil
}

// decode reads TOML, and tells the lines of its keys, "TABLE.KEY" in a table.
func decode(data []byte) (map[string]any, map[string]int, error) {
	var table map[string]any
	if err := toml.Unmarshal(data, &table); err != nil {
		line := 0
		if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
			line, _ = at.Position()
		}
		return nil, nil, atLine(line, err)
	}
	lines := map[string]int{}
	prefix := ""
	for p := parser(data); p.NextExpression(); {
		e := p.Expression()
		path, line := "", 0
		for key := e.Key(); key.Next(); {
			if path != "" {
				path += "."
			}
			path += string(key.Node().Data)
			if raw := key.Node().Raw; raw.Length > 0 {
				line = p.Shape(raw).Start.Line
			}
		}
		switch e.Kind {
		case unstable.KeyValue:
			lines[prefix+path] = line
		case unstable.Table:
			lines[path], prefix = line, path+"."
		}
	}
	return table, lines, nil
}

func parser(data []byte) *unstable.Parser {
	p := &unstable.Parser{}
	p.Reset(data)
	return p
}

func newValue(v any, line int) (Value, error) {
	switch v := v.(type) {
	case string, int64, bool:
		return Value{text: fmt.Sprint(v), line: line}, nil
	case []any:
		texts, err := texts(v)
		return Value{array: texts, line: line}, err
	}
	return Value{}, errors.New("want a string, a number, a boolean or an array of them")
}

// texts are the entries of an array, never nil.
func texts(array []any) ([]string, error) {
	out := make([]string, len(array))
	for i, v := range array {
		switch v.(type) {
		case string, int64, bool:
			out[i] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("entry %d: want a string, a number or a boolean", i+1)
		}
	}
	return out, nil
}

// atLine says where in a file an error is.
func atLine(line int, err error) error {
	if line == 0 {
		return err
	}
	return fmt.Errorf("line %d: %w", line, err)
}

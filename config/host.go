package config

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// HostFile holds the options that a host's administrator sets for all
// containers, as TOML: OPTION = "value".
const HostFile = "/etc/containerd/rich.toml"

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// Load reads a file of options. A file that does not exist holds none.
func Load(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	values, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return values, nil
}

// Parse reads options written as TOML. Strings, integers and booleans are
// taken as their text.
func Parse(data []byte) (map[string]string, error) {
	var table map[string]any
	if err := toml.Unmarshal(data, &table); err != nil {
		return nil, err
	}
	values := make(map[string]string, len(table))
	for key, v := range table {
		switch v := v.(type) {
		case string, int64, bool:
			values[key] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("option %q: want a string, a number or a boolean", key)
		}
	}
	return values, nil
}

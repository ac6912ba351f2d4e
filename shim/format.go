package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// storedFormat is the version of the files in a bundle that another program may
// read: the one that cleans up after a shim was killed is that which is
// installed then. It changes when such a program would misread them. A
// file that tells none is older than the versions are, and read as 1.
const storedFormat = 1

// format is a file's version: the one of this program where it is written.
type format struct{}

// MarshalJSON implements json.Marshaler.
func (format) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, storedFormat, 10), nil }

// UnmarshalJSON implements json.Unmarshaler. The version has been checked.
func (*format) UnmarshalJSON([]byte) error { return nil }

// errNewer is wrapped by errors about files that a newer program has written.
var errNewer = errors.New("written by a newer version of this program")

// checkFormat tells whether a file can be read.
func checkFormat(data []byte) error {
	var file struct{ Version int }
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	if file.Version > storedFormat {
		return fmt.Errorf("%w: format %d, known up to %d", errNewer, file.Version, storedFormat)
	}
	return nil
}

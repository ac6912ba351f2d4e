package bundle

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

// Format is a file's version: the one of this program where it is written.
type Format struct{}

// MarshalJSON implements json.Marshaler.
func (Format) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, storedFormat, 10), nil }

// UnmarshalJSON implements json.Unmarshaler. The version has been checked.
func (*Format) UnmarshalJSON([]byte) error { return nil }

// ErrNewer is wrapped by errors about files that a newer program has written.
var ErrNewer = errors.New("written by a newer version of this program")

// checkFormat tells whether a file can be read.
func checkFormat(data []byte) error {
	var file struct{ Version int }
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	if file.Version > storedFormat {
		return fmt.Errorf("%w: format %d, known up to %d", ErrNewer, file.Version, storedFormat)
	}
	return nil
}

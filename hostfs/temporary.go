package hostfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"
)

// attempts bounds how many names are tried that somebody else has.
const attempts = 100

// writeTemporary makes a file under a name of its own beside base. Whoever can
// guess that name can only make it fail.
func writeTemporary(fd int, base string, data []byte, mode fs.FileMode) (name string, err error) {
	for range attempts {
		name = "." + base + "-" + strconv.FormatUint(rand.Uint64(), 36)
		err = write(fd, name, data, mode)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// What could not be written whole.
		_ = unix.Unlinkat(fd, name, 0)
	}
	return name, err
}

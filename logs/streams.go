package logs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Streams writes to the container's streams, each line after the name of
// its component.
type Streams struct {
	name string
	end  string
	to   map[string]int // descriptors by stream
}

// NewStreams takes descriptors of the container's stdout and stderr that
// do not wait for a reader, -1 for a stream that the engine does not want, and
// how a line ends there.
func NewStreams(name string, fds [2]int, end string) *Streams {
	l := &Streams{name: name, end: end, to: map[string]int{}}
	for i, stream := range []string{"stdout", "stderr"} {
		if fds[i] >= 0 {
			l.to[stream] = fds[i]
		}
	}
	return l
}

// WriteLine implements Writer.
func (l *Streams) WriteLine(stream string, line []byte, _ bool) bool {
	fd, ok := l.to[stream]
	if !ok {
		return true // the engine wants none
	}
	text := fmt.Appendf(nil, "%s: %s%s", l.name, line, l.end)
	n, err := unix.Write(fd, text)
	return err == nil && n == len(text)
}

// Close closes the streams that were opened anew.
func (l *Streams) Close() error {
	var errs []error
	for _, fd := range l.to {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

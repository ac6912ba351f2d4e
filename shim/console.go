package shim

import (
	"errors"
	"io"
	"os"
)

// maxInitLog bounds the log of an init in bytes: half of it is kept when it
// is full. The bundle usually lies in memory.
const maxInitLog = 256 << 10

// logConsole writes what appears on an init's console to a file until it is
// closed.
func logConsole(master *os.File, path string) (io.Closer, error) {
	pty, err := pollable(master)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Join(err, pty.Close())
	}
	go func() {
		defer log.Close()
		w := &boundedLog{file: log, limit: maxInitLog}
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{pty}, make([]byte, terminalBuffer))
		// EIO or closed: the init is gone. Should the log be full because
		// the disk is, the init must still not block on its console.
		_, _ = io.Copy(io.Discard, pty)
	}()
	return pty, nil
}

// boundedLog drops the older half of a file when it reaches its limit.
type boundedLog struct {
	file  *os.File
	limit int64
	size  int64
}

func (l *boundedLog) Write(p []byte) (int, error) {
	if l.size+int64(len(p)) > l.limit {
		if err := l.halve(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.WriteAt(p, l.size)
	l.size += int64(n)
	return n, err
}

func (l *boundedLog) halve() error {
	keep := make([]byte, l.size/2)
	if _, err := l.file.ReadAt(keep, l.size-int64(len(keep))); err != nil {
		return err
	}
	if _, err := l.file.WriteAt(keep, 0); err != nil {
		return err
	}
	l.size = int64(len(keep))
	return l.file.Truncate(l.size)
}

package shim

import (
	"errors"
	"os"
	"strings"

	containerd "github.com/containerd/containerd/v2/pkg/shim"
)

// socketFile is the file of the socket that this process serves.
type socketFile struct {
	address string
	info    os.FileInfo
}

func socketAt(address string) (socketFile, error) {
	info, err := os.Lstat(strings.TrimPrefix(address, "unix://"))
	return socketFile{address, info}, err
}

// remove removes the file, unless another shim has taken its place: one that
// finds nobody answering in time listens there itself.
func (s socketFile) remove() error {
	now, err := socketAt(s.address)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !os.SameFile(now.info, s.info) {
		return err
	}
	return containerd.RemoveSocket(s.address)
}

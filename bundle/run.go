package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/initmode"
)

// What a container finds at /run/rich. It can make that writable if it may
// mount, so it is a file system of its own, small and gone with the container.

const (
	// runRoom is what the run directory holds beside the files of the plan, in
	// bytes: app.json, twice while it is being replaced, and what its sockets
	// take.
	runRoom = 64 << 10
	// runInodes is the same in files.
	runInodes = 16
	// inlineLink is how long a link has to be to take a page of a tmpfs
	// (SHORT_SYMLINK_LEN in Linux's mm/shmem.c).
	inlineLink = 128
)

// MakeRun makes the run directory with the files of a plan. One that has none
// makes no use of it.
func (b Bundle) MakeRun(files []initmode.File) error {
	if len(files) == 0 {
		return nil
	}
	dir, err := b.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	// The process that searches it has the container's credentials.
	if err := dir.Mkdir(RunDir, 0o755); err != nil {
		return err
	}
	limits, flags := runLimits(files)
	run, err := dir.MountTmpfs(RunDir, limits, flags)
	if err != nil {
		return err
	}
	defer run.Close()
	return writeFiles(run, files)
}

// runLimits bounds the file system of the run directory. Only if there are
// scripts in it something may be executed from there.
func runLimits(files []initmode.File) (l hostfs.Limits, flags uintptr) {
	page := int64(os.Getpagesize())
	l = hostfs.Limits{Bytes: runRoom, Inodes: runInodes}
	flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	dirs := map[string]bool{}
	for _, f := range files {
		l.Bytes += (int64(len(f.Data)) + page - 1) / page * page
		if len(f.Link) >= inlineLink {
			l.Bytes += page
		}
		l.Inodes++
		for dir := path.Dir(f.Path); dir != "." && !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
			l.Inodes++
		}
		if f.Mode.IsRegular() && f.Mode&0o111 != 0 && len(f.Data) > 0 {
			flags &^= unix.MS_NOEXEC
		}
	}
	return l, flags
}

// writeFiles writes the files of a plan.
func writeFiles(dir *hostfs.Dir, files []initmode.File) error {
	made := map[string]bool{".": true}
	for _, f := range files {
		if parent := path.Dir(f.Path); !made[parent] {
			if err := dir.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			made[parent] = true
		}
		var err error
		switch f.Mode.Type() {
		case fs.ModeSymlink:
			err = dir.Symlink(f.Link, f.Path)
		case fs.ModeDir:
			err = dir.Mkdir(f.Path, f.Mode)
		case 0:
			err = dir.WriteFile(f.Path, f.Data, f.Mode)
		default:
			err = fmt.Errorf("%s: a file of type %v", f.Path, f.Mode.Type())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// OpenRun opens the run directory.
func (b Bundle) OpenRun() (*hostfs.Dir, error) {
	dir, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Sub(RunDir)
}

// Show replaces what the container finds at /run/rich/app.json.
func (b Bundle) Show(state any) error {
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	dir, err := b.OpenRun()
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Replace(appFile, append(data, '\n'), 0o644)
}

// Unmount detaches what is mounted at names in the directory of ours.
func (b Bundle) Unmount(names ...string) error {
	dir, err := b.Open()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var errs []error
	for _, name := range names {
		errs = append(errs, dir.Unmount(name))
	}
	return errors.Join(errs...)
}

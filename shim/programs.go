package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/launch"
)

// Programs that containers get from the host.
const (
	launcherProgram = "rich-launch"
	dumbInitProgram = "dumb-init"
)

// programDir finds where the programs for containers are installed: beside
// the shim, or where `make install` puts them.
func programDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Dir(self)
	installed := filepath.Join(beside, "..", "libexec", "containerd-shim-rich")
	for _, dir := range []string{beside, installed} {
		if _, err := os.Stat(filepath.Join(dir, launcherProgram)); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%s is neither in %s nor in %s; install it with the shim (make install)", launcherProgram, beside, installed)
}

// programs are those that belong to this shim, whatever is installed later:
// a launcher of another version would not understand it.
type programs struct {
	mu sync.Mutex
	// pinned are open as long as the shim lives; nil if there were none yet.
	pinned map[string]*program
	dir    string // where they were found
	// unfit says that a launcher, or who pretended to be one, did not
	// understand this shim.
	unfit bool
}

// program is an installed program.
type program struct {
	file *os.File
	id   identity
}

// identity tells a file from the one that takes its place, and from what it
// was before it was written to.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func identify(stat *unix.Stat_t) identity {
	return identity{dev: stat.Dev, ino: stat.Ino, size: stat.Size, mtime: stat.Mtim, ctime: stat.Ctim}
}

// pin opens the programs that are installed. What is missing then is missing
// until there are some.
func (p *programs) pin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open()
}

// open is pin. The caller holds mu.
func (p *programs) open() error {
	dir, err := programDir()
	if err != nil {
		return err
	}
	pinned := map[string]*program{}
	for _, name := range []string{launcherProgram, dumbInitProgram} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // whoever needs it will say so
		}
		var stat unix.Stat_t
		if err == nil {
			if err = unix.Fstat(int(f.Fd()), &stat); err != nil {
				f.Close()
			}
		}
		if err != nil {
			release(pinned)
			return err
		}
		pinned[name] = &program{f, identify(&stat)}
	}
	release(p.pinned)
	p.dir, p.pinned = dir, pinned
	return nil
}

func release(pinned map[string]*program) {
	for _, program := range pinned {
		program.file.Close()
	}
}

// mismatched notes that a launcher did not understand this shim.
func (p *programs) mismatched() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unfit = true
}

// maxLauncher bounds what is looked at of a launcher, in bytes.
const maxLauncher = 64 << 20

// fit reports whether the pinned launcher is one that understands this shim.
// The caller holds mu.
func (p *programs) fit() bool {
	launcher := p.pinned[launcherProgram]
	if launcher == nil {
		return false
	}
	content, err := io.ReadAll(io.NewSectionReader(launcher.file, 0, min(launcher.id.size, maxLauncher)))
	return err == nil && bytes.Contains(content, []byte(launch.Mark))
}

// installed reports whether what is installed are still the programs of this
// shim. The caller holds mu.
func (p *programs) installed() bool {
	for _, name := range []string{launcherProgram, dumbInitProgram} {
		var stat unix.Stat_t
		err := unix.Stat(filepath.Join(p.dir, name), &stat)
		ours := p.pinned[name]
		if ours == nil && err == nil || ours != nil && (err != nil || identify(&stat) != ours.id) {
			return false
		}
	}
	return true
}

// expose makes the programs visible in a directory of ours, which it makes, in
// a way that not even a container with all capabilities can write to: an
// overlay without an upper directory has no writable form, whatever is
// remounted. If others have been installed meanwhile, or the kernel refuses
// such an overlay (its layers may be overlays already), the container gets
// copies of its own, in a file system that has no room for more.
func (p *programs) expose(ours *hostfs.Dir, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pinned == nil || p.unfit && !p.fit() {
		// They were being installed as this shim started.
		if err := p.open(); err != nil {
			return err
		}
	}
	p.unfit = false
	if err := ours.Mkdir(name, 0o711); err != nil {
		return err
	}
	target, err := ours.Sub(name)
	if err != nil {
		return err
	}
	defer target.Close()
	if p.installed() && exposeReadOnly(p.dir, target.Path()) == nil {
		if p.installed() {
			return nil
		}
		// They have been replaced this very moment.
		if err := ours.Unmount(name); err != nil {
			return err
		}
	}
	return p.copy(ours, name)
}

// copy is expose with copies.
func (p *programs) copy(ours *hostfs.Dir, name string) error {
	page := int64(os.Getpagesize())
	limits := hostfs.Limits{Inodes: 1}
	for _, program := range p.pinned {
		limits.Bytes += (program.id.size + page - 1) / page * page
		limits.Inodes++
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	dir, err := ours.MountTmpfs(name, limits, flags)
	if err != nil {
		return err
	}
	defer dir.Close()
	for name, program := range p.pinned {
		if err := program.copy(dir, name); err != nil {
			return fmt.Errorf("copy %s: %w", program.file.Name(), err)
		}
	}
	return dir.SetReadOnly(flags)
}

func (p *program) copy(dir *hostfs.Dir, name string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(p.file.Fd()), &stat); err != nil {
		return err
	}
	// Its change time is that of the moment when it was replaced.
	if stat.Size != p.id.size || stat.Mtim != p.id.mtime {
		return errors.New("it was overwritten while this shim runs; install programs under another name and rename them, " +
			"and make the pod or the container anew")
	}
	to, err := dir.Create(name, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(p.file, 0, p.id.size))
	return errors.Join(err, to.Close())
}

// exposeReadOnly makes a directory visible at target, an empty one, by an
// overlay that cannot be written to.
func exposeReadOnly(dir, target string) error {
	lower, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lower.Close()
	// An overlay wants two layers at least; the second is the empty target.
	empty, err := os.Open(target)
	if err != nil {
		return err
	}
	defer empty.Close()
	// By descriptor: a path may hold the option's separators.
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d:/proc/self/fd/%d", lower.Fd(), empty.Fd())
	return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, options)
}

// checkProgram says clearly that a program for the container is missing.
func checkProgram(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s is not installed beside %s: %w", filepath.Base(path), launcherProgram, err)
	}
	return nil
}

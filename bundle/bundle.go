package bundle

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"containerd-shim-rich/hostfs"
)

// What this runtime keeps in a bundle, all below one directory.
const (
	Dir            = "rich"      // everything of ours
	StateDir       = "state"     // libcontainer's state
	RunDir         = "run"       // what the container sees at /run/rich
	BinDir         = "bin"       // read-only view of the programs given to it
	InitLogFile    = "init.log"  // what the init itself says
	InitFile       = "init.json" // how far the init is
	ExitFile       = "exit.json" // how the container ended
	MadeFile       = "made.json" // facts needed to clean up without the shim
	LauncherSocket = "shim.sock" // the launcher's way to the shim, in RunDir
	appFile        = "app.json"  // how the command is, in RunDir

	RootfsDir = "rootfs" // the root file system, beside Dir
)

// maxStored bounds what is read of a file that a shim has stored, in bytes: the
// largest part are the hooks and annotations of a config.json.
const maxStored = 32 << 20

// Bundle is the directory that containerd makes for a container.
type Bundle string

// Path is the path of what is at name in the directory of ours.
func (b Bundle) Path(name ...string) string {
	return filepath.Join(append([]string{string(b), Dir}, name...)...)
}

// Open opens the directory of ours.
func (b Bundle) Open() (*hostfs.Dir, error) {
	dir, err := hostfs.Open(string(b))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Sub(Dir)
}

// Make makes the directory of ours, unless it is there.
func (b Bundle) Make() error {
	dir, err := hostfs.Open(string(b))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Mkdir(Dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// Store replaces a file of ours by the JSON of v.
func (b Bundle) Store(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir, err := b.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Replace(name, data, 0o600)
}

// Load reads what Store has stored. The error wraps os.ErrNotExist if that is
// nothing, and ErrNewer if a newer program has stored it.
func (b Bundle) Load(name string, v any) error {
	dir, err := b.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	data, err := dir.ReadFile(name, maxStored)
	if err != nil {
		return err
	}
	if err := checkFormat(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// LinkState makes a common directory for the state of all containers of a
// namespace this bundle's own, so that whoever cleans up finds it. Without
// one the state lies in the bundle.
func (b Bundle) LinkState(common, namespace string) error {
	if common == "" {
		return nil
	}
	// The directory is one of the host's, and its path the engine's.
	dir := filepath.Join(common, strings.ReplaceAll(namespace, "/", "_"))
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // a path of the engine's own, which may lead through links
		return err
	}
	ours, err := b.Open()
	if err != nil {
		return err
	}
	defer ours.Close()
	return ours.Symlink(dir, StateDir)
}

// Package containerdtest starts private containerds, for the integration tests
// and the bench, and removes all that is left of them.
package containerdtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/integration/daemon"
)

// Settings say which containerd to start, and how.
type Settings struct {
	// Group begins the names of the folders of such runs, and is the cgroup that
	// those of their containers are in.
	Group string
	// Parent is where the folder of the run is made; os.TempDir() if empty.
	Parent string
	// Program is the containerd, which understands ConfigVersion.
	Program       string
	ConfigVersion int
	LogLevel      string
	// Path are the folders of the shims and their programs, before PATH.
	Path []string
	// ShimEnv is added to the environment of shims, if ConfigVersion is 4.
	ShimEnv []string
	// Images is the folder of what Image imports.
	Images string
	// StateInMemory has its state on a tmpfs, as /run is on a host.
	StateInMemory bool
	// Hidden is a mount point whose mount it does not see; empty: none.
	Hidden string
	// KeepLog is where its log stays after the run; empty: nowhere.
	KeepLog string
	// Limit bounds each wait, so that what hangs ends.
	Limit time.Duration
}

// Daemon is a containerd that shares nothing with the machine's own one.
type Daemon struct {
	Settings
	// Dir holds everything of the run: root, state, sockets, logs.
	Dir string
	// Events is the socket where containerd takes the events of shims.
	Events string
	Client *containerd.Client

	daemon.Daemon

	imagesLock sync.Mutex
	images     map[string]containerd.Image

	removeOnce sync.Once
}

// RunName tells this run from others on the same machine.
func (d *Daemon) RunName() string { return filepath.Base(d.Dir) }

// Cgroup is the parent of the cgroups of all containers of this run.
func (d *Daemon) Cgroup() string { return cgroupOf(d.Group, d.Dir) }

// Address is the socket for clients.
func (d *Daemon) Address() string { return filepath.Join(d.Dir, "containerd.sock") }

// ClientTemp is for the temporary files of clients, which mount snapshots there.
func (d *Daemon) ClientTemp() string { return filepath.Join(d.Dir, "client-tmp") }

// New makes the folder of a run, which Remove removes.
func New(settings Settings) (*Daemon, error) {
	dir, err := os.MkdirTemp(settings.Parent, settings.Group+"-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Settings: settings, Dir: dir, images: map[string]containerd.Image{}}
	d.Events = d.Address() + ".ttrpc"
	d.Name, d.Log = "containerd", filepath.Join(dir, "containerd.log")
	return d, nil
}

// Start starts containerd in a new folder, and waits until it serves.
func (d *Daemon) Start() error {
	if err := d.makeFolders(); err != nil {
		return err
	}
	if err := d.Configure(); err != nil {
		return err
	}
	if err := d.Daemon.Start(); err != nil {
		return err
	}
	return d.connect()
}

func (d *Daemon) makeFolders() error {
	// Root of a user namespace has to get to its root file system.
	if err := os.Chmod(d.Dir, 0o711); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on overlayfs, which cannot carry another one: set TMPDIR to a folder on ext4, xfs or tmpfs", d.Dir)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, ownerFile), []byte(ownerMark(os.Getpid())), 0o644); err != nil {
		return err
	}
	for _, sub := range []string{"tmp", "client-tmp", "fifo"} {
		if err := os.Mkdir(filepath.Join(d.Dir, sub), 0o755); err != nil {
			return err
		}
	}
	if !d.StateInMemory {
		return nil
	}
	state := filepath.Join(d.Dir, "state")
	if err := os.Mkdir(state, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "mode=0711"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	return nil
}

// Configure has the next start heed what was changed of the settings.
func (d *Daemon) Configure() error {
	file := filepath.Join(d.Dir, "config.toml")
	if err := os.WriteFile(file, []byte(d.config()), 0o644); err != nil {
		return err
	}
	d.Args = []string{d.Program, "--config", file}
	if d.Hidden != "" {
		d.Args = append([]string{"unshare", "--mount", "sh", "-ec", `umount "$0"; exec "$@"`, d.Hidden}, d.Args...)
	}
	d.Env = []string{
		"PATH=" + strings.Join(append(d.Path[:len(d.Path):len(d.Path)], os.Getenv("PATH")), ":"),
		"TMPDIR=" + filepath.Join(d.Dir, "tmp"),
	}
	return nil
}

// Restart starts containerd again after its end.
func (d *Daemon) Restart() error {
	if err := d.Daemon.Start(); err != nil {
		return err
	}
	// Not left to the old connection, which waits longer after each failure.
	if err := d.Client.Reconnect(); err != nil {
		return err
	}
	return d.connect()
}

// connect waits until containerd serves.
func (d *Daemon) connect() error {
	return d.Ready(d.Limit, func() error {
		if d.Client == nil {
			client, err := containerd.New(d.Address(), containerd.WithTimeout(time.Second))
			if err != nil {
				return err
			}
			d.Client = client
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := d.Client.Version(ctx)
		return err
	})
}

// Image returns localhost/NAME:latest, imported from NAME.tar of the folder of
// images and unpacked at its first use.
func (d *Daemon) Image(ctx context.Context, name string) (containerd.Image, error) {
	d.imagesLock.Lock()
	defer d.imagesLock.Unlock()
	if image, found := d.images[name]; found {
		return image, nil
	}
	file, err := os.Open(filepath.Join(d.Images, name+".tar"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := d.Client.Import(ctx, file); err != nil {
		return nil, err
	}
	image, err := d.Client.GetImage(ctx, "localhost/"+name+":latest")
	if err != nil {
		return nil, err
	}
	if err := image.Unpack(ctx, ""); err != nil {
		return nil, err
	}
	d.images[name] = image
	return image, nil
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/schedcore"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"containerd-shim-rich/cgroup"
	"containerd-shim-rich/child"
	"containerd-shim-rich/hostfs"
	"containerd-shim-rich/oci"
)

// groupAnnotations name the annotations whose value lets containers share a
// shim; the first that a bundle has counts.
var groupAnnotations = []string{
	"io.containerd.runc.v2.group",
	"io.kubernetes.cri.sandbox-id",
}

// addressFile tells in each bundle where its shim listens.
const addressFile = "address"

// manager starts, describes and cleans up after shims. containerd runs it
// as a process of its own each time.
type manager struct {
	// listener is where this process is to serve; nil unless Start has found
	// that no other shim does.
	listener *net.UnixListener
	own      socketFile // its file
}

// NewManager returns the manager that containerd's shim library drives.
func NewManager() containerd.Shim { return &manager{} }

// Name returns the runtime's name.
func (*manager) Name() string { return RuntimeName }

// Start makes sure that a shim will serve the container, and says where.
func (m *manager) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	annotations, err := oci.Annotations(".")
	if err != nil {
		return nil, fmt.Errorf("load bundle: %w", err)
	}
	group := params.GetInstanceID()
	for _, key := range groupAnnotations {
		if v, ok := annotations[key]; ok {
			group = v
			break
		}
	}
	dir := params.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	result := &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc"}
	result.Address, err = containerd.CreateSocketAddress(ctx, dir, params.GetContainerdGrpcAddress(), group, false)
	if err != nil {
		return nil, err
	}
	// At its end the shim removes the socket that this file names, and who
	// cleans up after a shim that was killed does. (The library by itself
	// would only find the one of a group called like its first container.)
	// A restarted containerd 1.x finds the shim of each container by it.
	if err := writeAddress(result.Address); err != nil {
		return nil, err
	}
	path := pathOf(result.Address)
	if alive, err := serving(path); err != nil || alive {
		return result, err
	}
	// Before the others of the group can find it: none of them is to trust in
	// a shim that there will not be.
	if err := settle(params); err != nil {
		return nil, err
	}
	listener, err := listen(path, params.GetInstanceID())
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return result, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", result.Address, err)
	}
	m.listener = listener
	m.own, err = socketAt(result.Address)
	return result, err
}

// writeAddress tells in the bundle, the working directory, where its shim
// listens.
func writeAddress(address string) error {
	dir, err := hostfs.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Replace(addressFile, []byte(address), 0o600)
}

// schedCoreEnv is the variable with which containerd asks for a shim whose
// processes share no processor core with others at the same time
// (containerd's docs/runtime-v2.md).
const schedCoreEnv = "SCHED_CORE"

// isOn reports whether a variable is set, and not to a word for no.
func isOn(value string) bool {
	on, err := strconv.ParseBool(value)
	return value != "" && (on || err != nil)
}

// settle puts this process, a new shim, where the options want it.
func settle(params *bootapi.BootstrapParams) error {
	pid := os.Getpid()
	if value := os.Getenv(schedCoreEnv); isOn(value) {
		// The kernel's own words are "invalid argument".
		if err := schedcore.Create(schedcore.ThreadGroup); err != nil {
			return fmt.Errorf("environment variable %s: value %q: make a group for core scheduling: %w; it needs a kernel with CONFIG_SCHED_CORE and a processor with SMT switched on",
				schedCoreEnv, value, err)
		}
	}
	// What is wrong with the options is said by Create, whose errors have a
	// class.
	if opts, err := bootstrapOptions(params); err == nil && opts.shimCgroup != "" {
		if err := cgroup.Join(opts.shimCgroup, pid); err != nil {
			return fmt.Errorf("runtime option ShimCgroup: value %q: %w", opts.shimCgroup, err)
		}
	}
	if err := containerd.AdjustOOMScore(pid); err != nil {
		return fmt.Errorf("adjust OOM score: %w", err)
	}
	return nil
}

// Stop removes whatever is left of a container whose shim is gone. It is
// also called after an orderly end, and then finds nothing to do.
func (*manager) Stop(ctx context.Context, id string) (containerd.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return containerd.StopStatus{}, err
	}
	// The working directory is the bundle of the shim's first container.
	path := filepath.Join(filepath.Dir(cwd), id)
	exit, err := remains(path, child.New())
	if err := errors.Join(err, removeSockets(filepath.Join(path, addressFile), id)); err != nil {
		log.G(ctx).WithError(err).WithField("id", id).Warn("clean up after the shim")
	}
	return containerd.StopStatus{Pid: exit.PID, ExitStatus: int(exit.Status), ExitedAt: exit.At}, nil
}

// removeSockets removes what shims of a container have left of the socket that
// a file names, if nobody listens there.
func removeSockets(file, id string) error {
	address, err := containerd.ReadAddress(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	path := pathOf(address)
	if err := os.Remove(newName(path, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return removeDeadSocket(path)
}

// Info describes the runtime; the options of the handler come from in.
func (*manager) Info(_ context.Context, in io.Reader) (*types.RuntimeInfo, error) {
	return info(in)
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// maxBootstrap bounds what containerd sends to a starting shim, in bytes.
const maxBootstrap = 10 << 20

// processors is the GOMAXPROCS of a shim: starts of containers wait for each
// other less.
const processors = 4

// Starts reports whether a command line is that of a start: with flags first
// and the action last, as the program's constructor expects it.
func Starts(args []string) bool {
	return len(args) > 2 && strings.HasPrefix(args[1], "-") && args[len(args)-1] == "start"
}

// Bootstrap answers containerd's request to start a shim. If no other one
// serves the container's group, this process becomes the shim: it has the
// listener as the given descriptor, /dev/null for its standard streams, and
// returns the command line to go on with. Otherwise that is nil.
func Bootstrap(args []string, listener int) (serve []string, err error) {
	input, err := io.ReadAll(io.LimitReader(os.Stdin, maxBootstrap))
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	params, legacy, err := bootstrapParams(args[1:], input)
	if err != nil {
		return nil, err
	}
	m := &manager{}
	result, err := m.Start(namespaces.WithNamespace(context.Background(), params.Namespace), params)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && m.listener != nil {
			err = errors.Join(err, m.own.remove())
		}
	}()
	answer := []byte(result.Address)
	if !legacy {
		if answer, err = proto.Marshal(result); err != nil {
			return nil, err
		}
	}
	if m.listener != nil {
		if serve, err = m.become(params, args[0], listener); err != nil {
			return nil, err
		}
	}
	if _, err = os.Stdout.Write(answer); err != nil || m.listener == nil {
		return nil, err
	}
	return serve, closeStandard()
}

// become makes this process one that only has to be run as a shim.
func (m *manager) become(params *bootapi.BootstrapParams, program string, listener int) ([]string, error) {
	socket, err := m.listener.File()
	if err != nil {
		return nil, err
	}
	err = unix.Dup3(int(socket.Fd()), listener, unix.O_CLOEXEC)
	if err := errors.Join(err, socket.Close(), m.listener.Close()); err != nil {
		return nil, fmt.Errorf("keep the listener: %w", err)
	}
	// The library lowers it unless it is set.
	if err := os.Setenv("GOMAXPROCS", strconv.Itoa(processors)); err != nil {
		return nil, err
	}
	runtime.GOMAXPROCS(processors)
	// The library takes it from nowhere else.
	if address := params.GetContainerdTtrpcAddress(); address != "" {
		if err := os.Setenv("TTRPC_ADDRESS", address); err != nil {
			return nil, err
		}
	}
	// Without -address: nothing needs it but the library, to find out where the
	// shim listens. It would remove that socket at the very end, when it may be
	// the next shim's.
	serve := []string{program, "-namespace", params.Namespace, "-id", params.InstanceID}
	if params.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG {
		serve = append(serve, "-debug")
	}
	return serve, nil
}

// closeStandard makes /dev/null the standard streams: containerd reads until
// nobody has its pipe any more.
func closeStandard() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	return nil
}

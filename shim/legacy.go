package shim

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// maxBootstrap bounds what containerd sends to a starting shim, in bytes.
const maxBootstrap = 10 << 20

// StartLegacy starts a shim for a containerd before 2.3. Those put the
// parameters on the command line and the runtime options on stdin, expect
// nothing but the address of the shim as answer, and speak version 2 of the
// task service. It returns false, with args and os.Stdin as they were for
// the next reader, if this is not such a start.
func StartLegacy(args []string) (bool, error) {
	if !slices.Contains(args, "start") {
		return false, nil
	}
	input, err := io.ReadAll(io.LimitReader(os.Stdin, maxBootstrap))
	if err != nil {
		return false, fmt.Errorf("read stdin: %w", err)
	}
	params, err := legacyParams(args, input)
	if err != nil {
		return false, err
	}
	if params == nil {
		return false, replaceStdin(input)
	}
	ctx := namespaces.WithNamespace(context.Background(), params.Namespace)
	result, err := manager{}.Start(ctx, params)
	if err != nil {
		return true, err
	}
	_, err = io.WriteString(os.Stdout, result.Address)
	return true, err
}

// legacyParams reads the parameters of an old containerd, and returns nil if
// input holds those of a new one.
func legacyParams(args []string, input []byte) (*bootapi.BootstrapParams, error) {
	set := flag.NewFlagSet(RuntimeName, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	id := set.String("id", "", "")
	namespace := set.String("namespace", "", "")
	address := set.String("address", "", "")
	debug := set.Bool("debug", false, "")
	for _, other := range []string{"publish-binary", "bundle", "socket", "debug-socket"} {
		set.String(other, "", "")
	}
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	// Old options may happen to parse as new parameters, but not with the
	// identity that is on the command line as well.
	var params bootapi.BootstrapParams
	if len(input) > 0 && proto.Unmarshal(input, &params) == nil && params.InstanceID == *id && params.Namespace == *namespace {
		return nil, nil
	}
	legacy := &bootapi.BootstrapParams{
		InstanceID:             *id,
		Namespace:              *namespace,
		ContainerdGrpcAddress:  *address,
		ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
	}
	if *debug {
		legacy.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if len(input) > 0 {
		options := &anypb.Any{}
		if err := proto.Unmarshal(input, options); err != nil {
			return nil, fmt.Errorf("runtime options on stdin: %w", err)
		}
		if options.TypeUrl != "" {
			if err := legacy.AddExtension(options); err != nil {
				return nil, err
			}
		}
	}
	return legacy, nil
}

// replaceStdin makes os.Stdin yield what has been read from it.
func replaceStdin(input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	os.Stdin = r
	go func() {
		_, err := io.Copy(w, bytes.NewReader(input))
		if err := errors.Join(err, w.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "pass stdin on:", err)
		}
	}()
	return nil
}

// legacyPids is Pids for a containerd before 2.3. That takes an error for an
// empty list, and a shim with an empty list for one without a task: after its
// restart it would forget how a task ended meanwhile. An ended task has the
// pid that State reports.
func (s *service) legacyPids(ctx context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, toRPC(err)
	}
	if c.init.current() != tasktypes.Status_STOPPED {
		return s.Pids(ctx, r)
	}
	c.init.mu.Lock()
	defer c.init.mu.Unlock()
	return &task.PidsResponse{Processes: []*tasktypes.ProcessInfo{{Pid: uint32(c.init.pid)}}}, nil
}

// registerV2 serves version 2 of the task service. Its messages are those of
// version 3, byte for byte.
func (s *service) registerV2(server *ttrpc.Server) {
	server.RegisterService("containerd.task.v2.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"State":      method[task.StateRequest](s.State),
		"Create":     method[task.CreateTaskRequest](s.Create),
		"Start":      method[task.StartRequest](s.Start),
		"Delete":     method[task.DeleteRequest](s.Delete),
		"Pids":       method[task.PidsRequest](s.legacyPids),
		"Pause":      method[task.PauseRequest](s.Pause),
		"Resume":     method[task.ResumeRequest](s.Resume),
		"Checkpoint": method[task.CheckpointTaskRequest](s.Checkpoint),
		"Kill":       method[task.KillRequest](s.Kill),
		"Exec":       method[task.ExecProcessRequest](s.Exec),
		"ResizePty":  method[task.ResizePtyRequest](s.ResizePty),
		"CloseIO":    method[task.CloseIORequest](s.CloseIO),
		"Update":     method[task.UpdateTaskRequest](s.Update),
		"Wait":       method[task.WaitRequest](s.Wait),
		"Stats":      method[task.StatsRequest](s.Stats),
		"Connect":    method[task.ConnectRequest](s.Connect),
		"Shutdown":   method[task.ShutdownRequest](s.Shutdown),
	}})
}

// response is what the methods of the task service return.
type response interface {
	*task.StateResponse | *task.CreateTaskResponse | *task.StartResponse | *task.DeleteResponse | *task.PidsResponse |
		*task.WaitResponse | *task.StatsResponse | *task.ConnectResponse | *emptypb.Empty
}

func method[Request any, Response response](call func(context.Context, *Request) (Response, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request := new(Request)
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		return call(ctx, request)
	}
}

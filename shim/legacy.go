package shim

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// bootstrapParams reads the parameters of a start. A containerd before 2.3,
// legacy, puts them on the command line and the runtime options on stdin.
func bootstrapParams(args []string, input []byte) (_ *bootapi.BootstrapParams, legacy bool, _ error) {
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
		return nil, false, err
	}
	// Old options may happen to parse as new parameters, but not with the
	// identity that is on the command line as well.
	params := &bootapi.BootstrapParams{}
	if len(input) > 0 && proto.Unmarshal(input, params) == nil && params.InstanceID == *id && params.Namespace == *namespace {
		return params, false, nil
	}
	params = &bootapi.BootstrapParams{
		InstanceID:             *id,
		Namespace:              *namespace,
		ContainerdGrpcAddress:  *address,
		ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
	}
	if *debug {
		params.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if len(input) > 0 {
		options := &anypb.Any{}
		if err := proto.Unmarshal(input, options); err != nil {
			return nil, false, fmt.Errorf("runtime options on stdin: %w", err)
		}
		if options.TypeUrl != "" {
			if err := params.AddExtension(options); err != nil {
				return nil, false, err
			}
		}
	}
	return params, true, nil
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

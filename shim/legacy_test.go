package shim

import (
	"context"
	"errors"
	"os"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBootstrapParams(t *testing.T) {
	args := []string{"-namespace", "ns", "-address", "/run/c.sock", "-publish-binary", "/bin/containerd", "-id", "c1", "-debug", "start"}
	opts, err := anypb.New(&options.Options{ShimCgroup: "/shims"})
	if err != nil {
		t.Fatal(err)
	}
	for name, input := range map[string][]byte{"no options": nil, "options": marshal(t, opts)} {
		params, legacy, err := bootstrapParams(args, input)
		if err != nil || !legacy {
			t.Fatalf("%s: %v, %v", name, params, err)
		}
		if params.InstanceID != "c1" || params.Namespace != "ns" || params.ContainerdGrpcAddress != "/run/c.sock" ||
			params.LogLevel != bootapi.LogLevel_LOG_LEVEL_DEBUG {
			t.Errorf("%s: %+v", name, params)
		}
		var got options.Options
		found, err := params.FindExtension(&got)
		if err != nil || found != (input != nil) || found && got.ShimCgroup != "/shims" {
			t.Errorf("%s: options %v %+v, %v", name, found, &got, err)
		}
	}
	params, legacy, err := bootstrapParams(args, marshal(t, &bootapi.BootstrapParams{InstanceID: "c1", Namespace: "ns", ContainerdVersion: "2.3"}))
	if err != nil || legacy || params.ContainerdVersion != "2.3" {
		t.Errorf("new parameters taken for old: %v, %v", params, err)
	}
	if _, _, err := bootstrapParams([]string{"-nonsense", "start"}, nil); err == nil {
		t.Error("unknown flag accepted")
	}
}

func TestMethod(t *testing.T) {
	m := method[task.StateRequest](func(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
		return &task.StateResponse{ID: r.ID}, nil
	})
	got, err := m(context.Background(), func(v any) error {
		v.(*task.StateRequest).ID = "x"
		return nil
	})
	if err != nil || got.(*task.StateResponse).ID != "x" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestToRPC(t *testing.T) {
	for err, is := range map[error]func(error) bool{
		libcontainer.ErrNotRunning:                           errdefs.IsNotFound,
		libcontainer.ErrExist:                                errdefs.IsAlreadyExists,
		libcontainer.ErrPaused:                               errdefs.IsFailedPrecondition,
		libcontainer.ErrInvalidID:                            errdefs.IsInvalidArgument,
		os.ErrProcessDone:                                    errdefs.IsNotFound,
		error(unix.ESRCH):                                    errdefs.IsNotFound,
		withClass(os.ErrInvalid, errdefs.ErrInvalidArgument): errdefs.IsInvalidArgument,
		errdefs.ErrNotImplemented:                            errdefs.IsNotImplemented,
		errors.New("anything"):                               errdefs.IsUnknown,
	} {
		if got := errgrpc.ToNative(toRPC(err)); !is(got) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if toRPC(nil) != nil {
		t.Error("nil became an error")
	}
}

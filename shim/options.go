package shim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-rich/config"
)

// handlerOptions are what the handler in containerd's configuration sets for
// all its containers.
type handlerOptions struct {
	shimCgroup    string
	root          string
	systemdCgroup bool
	noPivotRoot   bool
	noNewKeyring  bool
	// rich are options of rich containers.
	rich config.Values
}

// parseOptions understands both kinds of options that containerd's clients
// send: those of runc, and a TOML document, which is what CRI makes of the
// options of any other runtime.
func parseOptions(in *anypb.Any) (handlerOptions, error) {
	if in == nil || in.GetTypeUrl() == "" {
		return handlerOptions{}, nil
	}
	v, err := typeurl.UnmarshalAny(in)
	if err != nil {
		return handlerOptions{}, fmt.Errorf("runtime options: %w", withClass(err, errdefs.ErrInvalidArgument))
	}
	return optionsOf(v, in.GetTypeUrl())
}

func optionsOf(message any, kind string) (handlerOptions, error) {
	switch o := message.(type) {
	case *options.Options:
		return fromRunc(o)
	case *runtimeoptions.Options:
		return fromTOML(o)
	}
	return handlerOptions{}, fmt.Errorf("runtime options: type %q: want %q or %q: %w", kind,
		"containerd.runc.v1.Options", "runtimeoptions.v1.Options", errdefs.ErrInvalidArgument)
}

// bootstrapOptions finds the options in what containerd sends to a starting
// shim.
func bootstrapOptions(params *bootapi.BootstrapParams) (handlerOptions, error) {
	for _, message := range []proto.Message{&options.Options{}, &runtimeoptions.Options{}} {
		found, err := params.FindExtension(message)
		if err != nil {
			return handlerOptions{}, fmt.Errorf("runtime options: %w", err)
		}
		if found {
			return optionsOf(message, "")
		}
	}
	return handlerOptions{}, nil
}

// fromRunc does without IoUid and IoGid: the streams belong to the container's
// root in any case.
func fromRunc(o *options.Options) (handlerOptions, error) {
	for _, refused := range []struct{ name, value, why string }{
		{"BinaryName", o.BinaryName, "this runtime starts no other program"},
		{"CriuImagePath", o.CriuImagePath, "this runtime makes no checkpoints"},
		{"CriuWorkPath", o.CriuWorkPath, "this runtime makes no checkpoints"},
	} {
		if refused.value != "" {
			return handlerOptions{}, fmt.Errorf("runtime option %s: value %q: %s; remove the option: %w",
				refused.name, refused.value, refused.why, errdefs.ErrInvalidArgument)
		}
	}
	return handlerOptions{
		shimCgroup:    o.ShimCgroup,
		root:          o.Root,
		systemdCgroup: o.SystemdCgroup,
		noPivotRoot:   o.NoPivotRoot,
		noNewKeyring:  o.NoNewKeyring,
	}, nil
}

// tomlOptions is the handler's table of options in containerd's
// configuration. The keys in capitals are those of runc.
type tomlOptions struct {
	BinaryName    string
	CriuImagePath string
	CriuWorkPath  string
	ShimCgroup    string
	Root          string
	SystemdCgroup bool
	NoPivotRoot   bool
	NoNewKeyring  bool
	Rich          map[string]any `toml:"rich"`
}

// tomlKeys are the keys of the table. Those that tomlOptions has not make no
// difference to a shim: the streams' owner, see fromRunc, and what containerd
// itself reads there.
var tomlKeys = []string{
	"BinaryName", "CriuImagePath", "CriuWorkPath", "ShimCgroup", "Root", "SystemdCgroup", "NoPivotRoot", "NoNewKeyring", "rich",
	"IoUid", "IoGid",
	"TypeUrl", "ConfigPath", "ConfigBody", "TaskApiAddress", "TaskApiVersion",
}

// checkKeys fails for a key that is no option.
func checkKeys(table map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if !slices.ContainsFunc(tomlKeys, func(known string) bool { return strings.EqualFold(known, key) }) {
			return fmt.Errorf("unknown option %q, the nearest known one is %q; options of this runtime itself belong in the table rich",
				key, config.Nearest(key, tomlKeys, 1)[0])
		}
	}
	return nil
}

// maxOptionsFile bounds a file of runtime options, in bytes.
const maxOptionsFile = 1 << 20

func fromTOML(o *runtimeoptions.Options) (handlerOptions, error) {
	body, source := o.ConfigBody, "ConfigBody"
	if o.ConfigPath != "" {
		source = o.ConfigPath
		var err error
		if body, err = config.ReadOwned(o.ConfigPath, maxOptionsFile); err != nil {
			return handlerOptions{}, fmt.Errorf("runtime option ConfigPath: value %q: %w", o.ConfigPath, withClass(err, errdefs.ErrInvalidArgument))
		}
	}
	var t tomlOptions
	var table map[string]any
	err := toml.Unmarshal(body, &table)
	if err == nil {
		err = checkKeys(table)
	}
	if err == nil {
		err = toml.Unmarshal(body, &t)
	}
	if err != nil {
		return handlerOptions{}, fmt.Errorf("runtime options in %s: %w", source, withClass(err, errdefs.ErrInvalidArgument))
	}
	out, err := fromRunc(&options.Options{
		BinaryName: t.BinaryName, CriuImagePath: t.CriuImagePath, CriuWorkPath: t.CriuWorkPath,
		ShimCgroup: t.ShimCgroup, Root: t.Root, SystemdCgroup: t.SystemdCgroup,
		NoPivotRoot: t.NoPivotRoot, NoNewKeyring: t.NoNewKeyring,
	})
	if err != nil {
		return handlerOptions{}, err
	}
	if out.rich, err = config.NewValues(t.Rich); err != nil {
		return handlerOptions{}, fmt.Errorf("runtime options in %s, table rich: %w", source, withClass(err, errdefs.ErrInvalidArgument))
	}
	return out, nil
}

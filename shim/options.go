package shim

import (
	"fmt"
	"os"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-rich/config"
)

// handlerOptions are what the handler in containerd's configuration sets for
// all its containers.
type handlerOptions struct {
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
	switch v := v.(type) {
	case *options.Options:
		return fromRunc(v)
	case *runtimeoptions.Options:
		return fromTOML(v)
	}
	return handlerOptions{}, fmt.Errorf("runtime options: type %q: want %q or %q: %w", in.GetTypeUrl(),
		"containerd.runc.v1.Options", "runtimeoptions.v1.Options", errdefs.ErrInvalidArgument)
}

func fromRunc(o *options.Options) (handlerOptions, error) {
	if o.BinaryName != "" {
		return handlerOptions{}, fmt.Errorf("runtime option BinaryName: value %q: this runtime starts no other program; remove the option: %w",
			o.BinaryName, errdefs.ErrInvalidArgument)
	}
	return handlerOptions{
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
	Root          string
	SystemdCgroup bool
	NoPivotRoot   bool
	NoNewKeyring  bool
	Rich          map[string]any `toml:"rich"`
}

func fromTOML(o *runtimeoptions.Options) (handlerOptions, error) {
	body, source := o.ConfigBody, "ConfigBody"
	if o.ConfigPath != "" {
		source = o.ConfigPath
		var err error
		if body, err = os.ReadFile(o.ConfigPath); err != nil {
			return handlerOptions{}, fmt.Errorf("runtime option ConfigPath: %w", err)
		}
	}
	var t tomlOptions
	if err := toml.Unmarshal(body, &t); err != nil {
		return handlerOptions{}, fmt.Errorf("runtime options in %s: %w", source, withClass(err, errdefs.ErrInvalidArgument))
	}
	out, err := fromRunc(&options.Options{
		BinaryName: t.BinaryName, Root: t.Root, SystemdCgroup: t.SystemdCgroup,
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

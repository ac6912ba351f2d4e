package hooks

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/child"
)

const (
	// hookTimeout bounds a hook that sets no timeout of its own.
	hookTimeout = 30 * time.Second
	// hookLinger is how long after its end a hook's output is waited for: a
	// process that it left may hold it open.
	hookLinger = time.Second
	// tailSize is how much of what a hook writes is told, in bytes of its end.
	tailSize = 2 << 10
	// maxState bounds what the hook command reads on its stdin, in bytes.
	maxState = 10 << 20
)

// hookCommand is the argument with which this program runs a hook.
const hookCommand = "hook"

// Unset are the hooks of a bundle's config.json that libcontainer does
// not run: it would start those of poststart before the container is started
// (runtime-spec, Lifecycle), and skip those of poststop behind one that fails.
type Unset struct {
	Poststart, Poststop []specs.Hook
}

// Configure prepares the hooks of a container. Those that libcontainer runs
// on the host are run through this program, as libcontainer itself waits for
// everything that holds a hook's output open, whatever the timeout.
func Configure(cfg *configs.Config, hooks *specs.Hooks) (Unset, error) {
	cfg.Hooks = configs.Hooks{}
	if hooks == nil {
		return Unset{}, nil
	}
	for _, phase := range []struct {
		name  configs.HookName
		hooks []specs.Hook
	}{
		{configs.Prestart, hooks.Prestart}, //nolint:staticcheck // deprecated, and still what many use
		{configs.CreateRuntime, hooks.CreateRuntime},
		{configs.CreateContainer, hooks.CreateContainer},
		{configs.StartContainer, hooks.StartContainer},
		{configs.Poststart, hooks.Poststart},
		{configs.Poststop, hooks.Poststop},
	} {
		for i, h := range phase.hooks {
			if err := checkHook(phase.name, i, h); err != nil {
				return Unset{}, err
			}
			switch phase.name {
			case configs.Poststart, configs.Poststop:
			case configs.StartContainer:
				// In the container there is nothing but the hook itself.
				timeout := timeoutOf(h)
				cfg.Hooks[phase.name] = append(cfg.Hooks[phase.name],
					configs.NewCommandHook(&configs.Command{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: &timeout}))
			default:
				cfg.Hooks[phase.name] = append(cfg.Hooks[phase.name], configs.NewCommandHook(throughShim(phase.name, i, h)))
			}
		}
	}
	return Unset{Poststart: hooks.Poststart, Poststop: hooks.Poststop}, nil
}

func checkHook(phase configs.HookName, i int, h specs.Hook) error {
	field := fmt.Sprintf("hooks.%s[%d]", phase, i)
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("%s.path: value %q: want an absolute path: %w", field, h.Path, errdefs.ErrInvalidArgument)
	}
	if h.Timeout != nil && *h.Timeout <= 0 {
		return fmt.Errorf("%s.timeout: value %d: want at least 1 second, or none: %w", field, *h.Timeout, errdefs.ErrInvalidArgument)
	}
	return nil
}

func timeoutOf(h specs.Hook) time.Duration {
	if h.Timeout == nil {
		return hookTimeout
	}
	return time.Duration(*h.Timeout) * time.Second
}

func hookLabel(phase configs.HookName, i int, path string) string {
	return fmt.Sprintf("%s hook #%d %s", phase, i, path)
}

// throughShim is the command with which this program runs a hook.
func throughShim(phase configs.HookName, i int, h specs.Hook) *configs.Command {
	env := h.Env
	if len(env) == 0 {
		// Never left to libcontainer: a createContainer hook, which is a
		// program of the host, would get the container's environment.
		env = child.HostEnviron()
	}
	args := []string{os.Args[0], hookCommand, hookLabel(phase, i, h.Path), timeoutOf(h).String(), h.Path}
	return &configs.Command{Path: "/proc/self/exe", Args: append(args, hookArgs(h)...), Env: env}
}

func hookArgs(h specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

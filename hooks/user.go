package hooks

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// permitted are the hooks of a container. Those that the container itself sets
// exceed its user no more than an init may.
func permitted(o config.Options, user specs.User) (prestart, poststop []config.Hook, err error) {
	prestart, poststop = o.Prestart, o.Poststop
	if user.UID == 0 || o.RootInit != config.RootInitNever {
		return prestart, poststop, nil
	}
	if !o.OperatorsPrestart {
		if prestart, err = config.OwnHooks(prestart, o.PrestartSource, user.UID, user.GID); err != nil {
			return nil, nil, err
		}
	}
	if !o.OperatorsPoststop {
		poststop, err = config.OwnHooks(poststop, o.PoststopSource, user.UID, user.GID)
	}
	return prestart, poststop, err
}

// process is the process of a hook. It has all capabilities that the
// container may have if its user is root, none if not, and those of the command if
// it is to be no more than that.
func (s *Set) process(hook config.Hook, option string) *specs.Process {
	p := *s.spec.Process
	out := &specs.Process{
		Args:            append([]string{hook.Path}, hook.Args[1:]...), // libcontainer executes argv[0]
		Env:             slices.Concat(config.WithoutPouch(p.Env), Environment(option, s.id, s.record.Ending), hook.Env),
		Cwd:             "/",
		User:            specs.User{UID: hook.UID, GID: hook.GID},
		NoNewPrivileges: p.NoNewPrivileges,
		ApparmorProfile: p.ApparmorProfile,
		SelinuxLabel:    p.SelinuxLabel,
		Rlimits:         p.Rlimits,
	}
	switch c := p.Capabilities; {
	case hook.Own:
		out.User.AdditionalGids, out.Capabilities = p.User.AdditionalGids, c
	case c != nil:
		out.Capabilities = &specs.LinuxCapabilities{Bounding: c.Bounding}
		if hook.UID == 0 {
			out.Capabilities.Effective, out.Capabilities.Permitted = c.Bounding, c.Bounding
		}
	}
	return out
}

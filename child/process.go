package child

import (
	"math"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"containerd-shim-rich/initmode"
)

// NewProcess translates a process of the runtime-spec.
func NewProcess(spec *specs.Process) (*libcontainer.Process, error) {
	p := &libcontainer.Process{
		Args:            spec.Args,
		Env:             spec.Env,
		UID:             int(spec.User.UID),
		GID:             int(spec.User.GID),
		Cwd:             spec.Cwd,
		Label:           spec.SelinuxLabel,
		NoNewPrivileges: &spec.NoNewPrivileges,
		AppArmorProfile: spec.ApparmorProfile,
		Scheduler:       spec.Scheduler,
		IOPriority:      spec.IOPriority,
		LogLevel:        strconv.Itoa(int(logrus.GetLevel())),
	}
	if size := spec.ConsoleSize; size != nil {
		p.ConsoleWidth = uint16(min(size.Width, math.MaxUint16))
		p.ConsoleHeight = uint16(min(size.Height, math.MaxUint16))
	}
	if c := spec.Capabilities; c != nil {
		p.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted,
			Inheritable: c.Inheritable, Ambient: c.Ambient,
		}
	}
	for _, gid := range spec.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, int(gid))
	}
	for _, l := range spec.Rlimits {
		resource, err := initmode.RlimitResource(l.Type)
		if err != nil {
			return nil, err
		}
		p.Rlimits = append(p.Rlimits, configs.Rlimit{Type: resource, Soft: l.Soft, Hard: l.Hard})
	}
	p.Rlimits = withMemlock(p.Rlimits)
	var err error
	p.CPUAffinity, err = configs.ConvertCPUAffinity(spec.ExecCPUAffinity)
	return p, err
}

package initmode

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// What every init that manages services needs as pid 1.

// manage gives the plan the init's process. Unless the command is that init
// itself, the command becomes a service of it and args start the init.
func (p *Plan) manage(req *Request, own bool, env, args []string) error {
	process := *req.Spec.Process
	process.Env = env
	if !own {
		var err error
		if p.Service, err = record(req); err != nil {
			return err
		}
		p.Console = true
		process.Terminal = false
		process.ConsoleSize = nil
		process.User = specs.User{}
		process.NoNewPrivileges = process.NoNewPrivileges && keepsPrivileges(req)
		process.Scheduler = nil
		process.IOPriority = nil
		process.ExecCPUAffinity = nil
		process.Capabilities = managerCapabilities(process.Capabilities)
		process.Rlimits = managerLimits(process.Rlimits, req.Limits)
		process.Args = args
	}
	p.Process = &process
	return nil
}

// keepsPrivileges reports whether no_new_privs of the command holds for pid 1 and all
// services, too: a pod's author who has to set allowPrivilegeEscalation to false
// gets around it by no init, unless the node's administrator has allowed one more
// than that.
func keepsPrivileges(req *Request) bool {
	return IsCRI(req.Spec.Annotations) && req.Options.RootInit == config.RootInitNever
}

// managerCapabilities are pid 1's: all that the container may have, since
// its services get theirs from it. What the command has less is the launcher's
// business.
func managerCapabilities(c *specs.LinuxCapabilities) *specs.LinuxCapabilities {
	if c == nil {
		return nil
	}
	return &specs.LinuxCapabilities{
		Bounding:    c.Bounding,
		Effective:   c.Bounding,
		Permitted:   c.Bounding,
		Inheritable: c.Inheritable,
	}
}

// managerLimits are pid 1's: the command's would hurt it (RLIMIT_CPU kills), but
// where the command is to have a higher hard limit than the runtime's own, pid 1
// must have it too, as it may lack the capability to raise it later.
func managerLimits(want []specs.POSIXRlimit, have []launch.Rlimit) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, w := range want {
		for _, h := range have {
			if rlimitTypes[w.Type] == h.Resource && w.Hard > h.Hard {
				out = append(out, specs.POSIXRlimit{Type: w.Type, Soft: max(h.Soft, min(w.Soft, w.Hard)), Hard: w.Hard})
			}
		}
	}
	return out
}

// managerEnv is the container's environment without what would change the
// init itself: the variables named, those with the prefix, and the dynamic
// linker's unless the command is that init. The init's services can have
// variables of the container from it.
func managerEnv(req *Request, own bool, prefix string, names ...string) []string {
	return slices.DeleteFunc(config.WithoutPouch(req.Spec.Process.Env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name) || strings.HasPrefix(name, prefix) || !own && strings.HasPrefix(name, "LD_")
	})
}

// mountRun adds what an init expects to be empty at its start, and ours in it.
func (p *Plan) mountRun(req *Request, at string) error {
	size := runSize(req)
	copyup, err := req.Rootfs.copyable("/run", size/2)
	if err != nil {
		return err
	}
	p.Mounts = append(p.Mounts, tmpfs("/run", "755", size, copyup))
	// Debian's systemd gives up if it has to mount this itself and may not.
	p.Mounts = append(p.Mounts, tmpfs("/run/lock", "1777", 5<<20, false))
	if req.Rootfs.IsDir("/var/run") {
		// On a machine this is a link to /run, so services expect what
		// they leave there to be gone at the next start.
		if copyup, err = req.Rootfs.copyable("/var/run", size/2); err != nil {
			return err
		}
		p.Mounts = append(p.Mounts, tmpfs("/var/run", "755", size, copyup))
	}
	p.exposeEnv(req, at)
	p.Files = append(p.Files, File{Path: "launch", Mode: 0o755}) // mount point for the launcher
	p.Mounts = append(p.Mounts,
		bindReadOnly(req.RunDir, at),
		bindReadOnly(req.Launcher, path.Join(at, "launch")),
	)
	p.addComponents(req, at)
	return nil
}

// mountMachineID gives the container an identity (machine-id(5)) that its
// image does not share.
func (p *Plan) mountMachineID(req *Request) error {
	machineID, err := req.Rootfs.Resolve("/etc/machine-id")
	if err != nil {
		return fmt.Errorf("/etc/machine-id of the root file system: %w; make it a file", err)
	}
	p.Files = append(p.Files, File{Path: "machine-id", Mode: 0o444, Data: []byte(req.MachineID + "\n")})
	id := bindReadOnly(path.Join(req.RunDir, "machine-id"), "/etc/machine-id", "noexec")
	id.Resolved, id.Keep = machineID, true
	p.Mounts = append(p.Mounts, id)
	return nil
}

func text(name string, lines ...string) File {
	return File{Path: name, Mode: 0o644, Data: []byte(strings.Join(lines, "\n") + "\n")}
}

func script(name string, lines ...string) File {
	f := text(name, lines...)
	f.Mode = 0o755
	return f
}

// tmpfs is a mount that yields to what the user mounts at the same place.
func tmpfs(destination, mode string, size int64, copyup bool) Mount {
	m := Mount{
		Mount: specs.Mount{
			Destination: destination, Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "strictatime", "mode=" + mode, fmt.Sprintf("size=%d", size)},
		},
		Resolved: destination,
		Keep:     true,
	}
	if copyup {
		m.Options = append(m.Options, "tmpcopyup")
	}
	return m
}

// runSize bounds the tmpfs at /run in bytes: systemd's journal alone would
// take a share of whatever it finds.
func runSize(req *Request) int64 {
	const limit = 256 << 20
	if req.Options.RunSize > 0 {
		return req.Options.RunSize
	}
	if r := req.Spec.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		return max(1<<20, min(limit, *r.Memory.Limit/2))
	}
	return limit
}

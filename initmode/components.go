package initmode

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-rich/components"
	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// Component is a component of the host as it runs in the container.
type Component struct {
	*components.Definition
	// Order starts it. Nothing else of the definition but the name reaches
	// the files of an init.
	Order launch.Run
}

// componentScore is the badness of a component for the OOM killer: when the
// container is short of memory, they go before the command.
const componentScore = 1000

// componentPath is what a component finds in PATH unless it sets it.
const componentPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// addComponents makes the components part of the plan, but for what starts
// them. Their directories are mounted below at.
func (p *Plan) addComponents(req *Request, at string) {
	for _, d := range req.Components {
		dir := ""
		if d.Directory != "" {
			dir = path.Join(at, "components", d.Name)
			p.Files = append(p.Files, File{Path: "components/" + d.Name, Mode: fs.ModeDir | 0o755})
			p.Mounts = append(p.Mounts, bindReadOnly(path.Join(req.ComponentsDir, d.Name), dir))
		}
		run := order(req, d, dir)
		if p.Service == nil && p.Child == nil {
			run.Record.Rlimits = withoutSet(run.Record.Rlimits, req.Spec.Process.Rlimits)
		}
		p.Components = append(p.Components, Component{Definition: d, Order: run})
	}
}

// order describes how to run a component whose directory the container has
// at dir.
func order(req *Request, d *components.Definition, dir string) launch.Run {
	user := req.Spec.Process.User
	umask, score := uint32(0o022), componentScore
	r := launch.Record{
		Args: argv(d.Exec, dir),
		Env: append([]string{
			componentPath,
			"RICH_CONTAINER_ID=" + req.ContainerID,
			"RICH_NAMESPACE=" + req.Namespace,
		}, d.Env...),
		Cwd:             "/",
		UID:             d.User.UID,
		GID:             d.User.GID,
		Umask:           &umask,
		Rlimits:         req.Limits,
		NoNewPrivileges: true,
		OOMScoreAdj:     &score,
		StopSignal:      int(unix.SIGTERM),
	}
	if dir != "" {
		r.Cwd = dir
		r.Env = slices.Insert(r.Env, 1, "RICH_COMPONENT_DIR="+dir)
	}
	if d.User.Command {
		r.UID, r.GID, r.Groups = user.UID, user.GID, user.AdditionalGids
	}
	if c := req.Spec.Process.Capabilities; c != nil {
		// Root has what the container may have, others nothing.
		caps := &launch.Capabilities{Bounding: capabilityMask(c.Bounding)}
		if r.UID == 0 {
			caps.Effective, caps.Permitted = caps.Bounding, caps.Bounding
		}
		r.Capabilities = caps
	}
	return launch.Run{
		Record:      r,
		Ready:       argv(d.Ready.Exec, dir),
		ReadyPort:   uint16(d.Ready.Port),
		Restart:     restarts[d.Restart],
		Delay:       d.RestartDelay,
		MaxDelay:    d.RestartMaxDelay,
		StopTimeout: d.StopTimeout,
	}
}

// withoutSet leaves out the limits that the spec sets: an init that is the
// command has them itself, and nothing that it starts can have more.
func withoutSet(limits []launch.Rlimit, set []specs.POSIXRlimit) []launch.Rlimit {
	return slices.DeleteFunc(slices.Clone(limits), func(l launch.Rlimit) bool {
		return slices.ContainsFunc(set, func(s specs.POSIXRlimit) bool { return rlimitTypes[s.Type] == l.Resource })
	})
}

var restarts = map[string]launch.Restart{
	components.RestartNever:     launch.RestartNever,
	components.RestartOnFailure: launch.RestartOnFailure,
	components.RestartAlways:    launch.RestartAlways,
}

func argv(exec []string, dir string) []string {
	if len(exec) == 0 || path.IsAbs(exec[0]) {
		return exec
	}
	return append([]string{path.Join(dir, exec[0])}, exec[1:]...)
}

// ComponentService is the name of the service that runs a component.
func ComponentService(name string) string { return "rich-component-" + name }

// noComponents says that nothing can run the components.
func noComponents(req *Request, why string) error {
	return fmt.Errorf("%s: value %q: %s; choose none, or set init to %q",
		req.componentsSource(), strings.Join(req.componentNames(), ","), why, config.InitDumbInit)
}

func (req *Request) componentNames() []string {
	var names []string
	for _, d := range req.Components {
		names = append(names, d.Name)
	}
	return names
}

// componentsSource says who chose the components.
func (req *Request) componentsSource() string {
	if len(req.Options.Components) > 0 {
		return req.Options.ComponentsSource
	}
	return req.Options.AlwaysComponentsSource
}

// beside makes dumb-init run the command and the components by the launcher.
func (d dumbInit) beside(req *Request, p *Plan, at string) error {
	root, err := componentsNeedRoot(req)
	if err != nil {
		return err
	}
	if p.Child, err = record(req); err != nil {
		return err
	}
	process := *req.Spec.Process
	process.Env = config.WithoutPouch(process.Env)
	process.Rlimits = managerLimits(process.Rlimits, req.Limits)
	if root {
		asRoot(&process)
	} else {
		inherit(p.Child)
	}
	process.Args = append([]string{path.Join(at, "dumb-init"), "--", path.Join(at, "launch"), "command"}, req.componentNames()...)
	p.Process = &process
	p.Files = append(p.Files,
		File{Path: "launch", Mode: 0o755},
		File{Path: "dumb-init", Mode: 0o755})
	p.Mounts = append(p.Mounts,
		bindReadOnly(req.RunDir, at),
		bindReadOnly(req.DumbInit, path.Join(at, "dumb-init")),
		bindReadOnly(req.Launcher, path.Join(at, "launch")))
	p.addComponents(req, at)
	return nil
}

// asRoot lets a process start others as any user. What it must not have
// itself is for the command alone.
func asRoot(p *specs.Process) {
	p.User = specs.User{}
	p.Capabilities = managerCapabilities(p.Capabilities)
	p.Scheduler, p.IOPriority = nil, nil
	p.NoNewPrivileges = false
}

// componentsNeedRoot reports whether dumb-init has to run as root, for a
// component that runs as somebody else than the command, and whether it may.
func componentsNeedRoot(req *Request) (bool, error) {
	user := req.Spec.Process.User
	if user.UID == 0 {
		return len(req.Components) > 0, nil
	}
	i := slices.IndexFunc(req.Components, func(d *components.Definition) bool { return !d.User.Command })
	if i < 0 {
		return false, nil
	}
	o := req.Options
	rule := o.RootInit
	if o.RootInitSource == "" {
		// In a pod the default is for what the pod's author chooses. What
		// runs as root here is all the host's.
		rule = config.RootInitExplicit
	}
	if rule == config.RootInitNever || rule == config.RootInitExplicit && !o.Explicit() {
		return false, fmt.Errorf("%s: value %q: component %q runs as user %d, for which init %q has to run as root, but the container's user is %d and root-init is %q; "+
			"set init to %q by name with root-init %q, set root-init to %q, or set user to \"command\" in the component's definition",
			req.componentsSource(), strings.Join(req.componentNames(), ","), req.Components[i].Name, req.Components[i].User.UID, config.InitDumbInit, user.UID, rule,
			config.InitDumbInit, config.RootInitExplicit, config.RootInitAlways)
	}
	return true, checkCapabilities(req)
}

// componentUnits run the components under systemd. The launcher restarts
// them. The order is that of stopping; when to start, the shim says.
func (s systemd) componentUnits(req *Request, p *Plan, launcher string) []File {
	var files []File
	target := "rich.target"
	if s.own {
		target = "basic.target"
	}
	for _, c := range p.Components {
		unit := ComponentService(c.Name) + ".service"
		lines := []string{
			"[Unit]",
			"Description=Component " + c.Name + " of the host",
			"DefaultDependencies=no",
			"After=basic.target",
			"Conflicts=shutdown.target",
			"Before=shutdown.target rich-app.service",
			"IgnoreOnIsolate=yes",
			"",
			"[Service]",
			"ExecStart=" + launcher + " component " + c.Name,
			"KillMode=mixed",
			"IgnoreSIGPIPE=no",
			"TasksMax=infinity",
			"OOMPolicy=continue",
			// After the launcher has sent KILL itself.
			fmt.Sprintf("TimeoutStopSec=%d", int(c.StopTimeout.Seconds())+10),
		}
		if req.Cgroups == CgroupUnified {
			// Elsewhere the shim limits what v1 controllers can.
			if c.Memory > 0 {
				lines = append(lines, fmt.Sprintf("MemoryMax=%d", c.Memory), "MemorySwapMax=0")
			}
			if c.CPU > 0 {
				lines = append(lines, fmt.Sprintf("CPUQuota=%d%%", c.CPU))
			}
		}
		files = append(files,
			text("units/"+unit, append(lines, limitLines(c.Order.Record.Rlimits, req.Limits)...)...),
			File{Path: "units/" + target + ".wants/" + unit, Mode: fs.ModeSymlink, Link: "../" + unit})
	}
	return files
}

// componentLines run the components from an inittab: those of stop before
// the image's own lines that stop services, those of run after all others.
type componentLines struct {
	stop, run []string
}

// componentLines makes the lines from what precedes a command in them.
func (p *Plan) componentLines(launcher, stop string, run func(i int) string) (lines componentLines) {
	if len(p.Components) > 0 {
		lines.stop = []string{stop + launcher + " stop --components"}
	}
	for i, c := range p.Components {
		lines.run = append(lines.run, run(i)+launcher+" component "+c.Name)
	}
	return lines
}

// openrcComponents run the components as services of OpenRC. They start
// before rich-app, which is after all others, and so stop after it.
func (p *Plan) openrcComponents(req *Request, launcher string) error {
	for _, c := range p.Components {
		id := ComponentService(c.Name)
		p.Files = append(p.Files, script("openrc/"+id,
			"#!/sbin/openrc-run",
			`description="Component `+c.Name+` of the host"`,
			"start() {",
			"	"+launcher+" component "+c.Name+" </dev/null >/dev/console 2>&1 &",
			"}",
			"stop() {",
			"	"+launcher+" stop "+c.Name,
			"}",
		))
		if err := p.addOpenRC(req, id, openrcLevel); err != nil {
			return err
		}
	}
	return nil
}

// runitComponents run the components as services of runit, which starts
// again whatever ends. It returns the commands that stop them.
func (p *Plan) runitComponents(req *Request, launcher, services string) (stop []string, err error) {
	for _, c := range p.Components {
		id := ComponentService(c.Name)
		p.Files = append(p.Files,
			script("runit/"+id+"/run",
				"#!/bin/sh",
				"exec "+launcher+" component "+c.Name+" wait </dev/null >/dev/console 2>&1",
			),
			File{Path: "runit/" + id + "/supervise", Mode: fs.ModeSymlink, Link: "/run/" + id + ".supervise"})
		if err := p.cover(req, "runit/"+id, path.Join(services, id)); err != nil {
			return nil, err
		}
		stop = append(stop, "sv -w 100 force-stop "+path.Join(services, id))
	}
	return stop, nil
}

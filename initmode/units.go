package initmode

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"containerd-shim-rich/config"
)

// Units of the image (systemd.unit(5)).

// unitDirs are where systemd looks for units that an image or a volume can
// hold, in its order.
var unitDirs = []string{
	"/etc/systemd/system.control",
	"/etc/systemd/system",
	"/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system",
	"/lib/systemd/system",
}

// sysvGenerator makes units of init scripts (systemd-sysv-generator(8), gone
// in systemd 258).
const sysvGenerator = "/systemd/system-generators/systemd-sysv-generator"

// unitTypes are the suffixes of units that can be started.
var unitTypes = []string{".service", ".socket", ".target", ".path", ".timer", ".mount", ".automount", ".swap", ".slice"}

// maxNames bounds the names of one unit.
const maxNames = 64

// maxUnit bounds how much of a unit is read, in bytes.
const maxUnit = 64 << 10

// unitSuffixes are all that a unit's name can end in.
var unitSuffixes = append([]string{".device", ".scope"}, unitTypes...)

// maxUnitName is the length of the longest name of a unit, in bytes.
const maxUnitName = 255

// isForeignUnit reports whether a name that was found in the image is that of
// a unit (systemd.unit(5)), and of none of ours: it may become part of our
// files.
func isForeignUnit(name string) bool {
	suffix := path.Ext(name)
	prefix := strings.TrimSuffix(name, suffix)
	const more = `:-_.\@`
	foreign := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	}
	return len(name) <= maxUnitName && prefix != "" && prefix[0] != '@' && slices.Contains(unitSuffixes, suffix) &&
		!config.IsReserved(name) && !strings.ContainsFunc(prefix, foreign)
}

// units are the names in a directory of the image that are those of units,
// and of none of ours.
func (r *Rootfs) units(dir string) []string {
	return slices.DeleteFunc(r.entries(dir), func(name string) bool { return !isForeignUnit(name) })
}

// unitName is the unit that a service's name stands for.
func unitName(service string) string {
	if slices.Contains(unitTypes, path.Ext(service)) {
		return service
	}
	return service + ".service"
}

// template is the template of a unit, if it is an instance of one.
func template(unit string) (name string, ok bool) {
	prefix, instance, ok := strings.Cut(unit, "@")
	suffix := path.Ext(instance)
	return prefix + "@" + suffix, ok && instance != suffix
}

// unitFile finds the file of a unit or of its template, and returns where it
// leads to. A file in a volume leads to itself.
func (p *Plan) unitFile(req *Request, unit string) (resolved string, found bool) {
	names := []string{unit}
	if t, ok := template(unit); ok {
		names = append(names, t)
	}
	for _, name := range names {
		for _, dir := range unitDirs {
			file := path.Join(dir, name)
			resolved, err := req.Rootfs.Resolve(file)
			if err != nil {
				continue
			}
			if resolved == os.DevNull || req.Rootfs.Exists(resolved) || p.volume(req, file) {
				return resolved, true
			}
		}
	}
	return "", false
}

// findUnit returns the unit that a service of the image is.
func (p *Plan) findUnit(req *Request, service string) (string, error) {
	unit := unitName(service)
	source := fmt.Sprintf("%s: value %q", req.Options.ServicesSource, service)
	if prefix, _, _ := strings.Cut(unit, "@"); strings.HasPrefix(unit, prefix+"@.") {
		return "", fmt.Errorf("%s: it is a template; name an instance of it, such as %s@1", source, prefix)
	}
	file, found := p.unitFile(req, unit)
	if !found {
		if alias := p.aliased(req, unit); alias != "" {
			return alias, nil
		}
		if p.isSysV(req, unit) {
			return unit, nil
		}
		var known []string
		for _, dir := range append(unitDirs, scriptDir) {
			for _, name := range req.Rootfs.entries(dir) {
				name = strings.TrimSuffix(name, ".service")
				if path.Ext(name) != ".wants" && path.Ext(name) != ".d" {
					known = append(known, name)
				}
			}
		}
		return "", unknownService(req, service, "("+unit+")", known)
	}
	if file == os.DevNull {
		return "", fmt.Errorf("%s: the image masks %s; remove the link to %s, or remove it here", source, unit, os.DevNull)
	}
	return unit, nil
}

// isSysV reports whether systemd makes a unit of an init script.
func (p *Plan) isSysV(req *Request, unit string) bool {
	name, ok := strings.CutSuffix(unit, ".service")
	if !ok || !req.Rootfs.Exists("/usr/lib"+sysvGenerator) && !req.Rootfs.Exists("/lib"+sysvGenerator) {
		return false
	}
	_, err := req.Rootfs.executable(path.Join(scriptDir, name))
	return err == nil
}

// aliased finds the unit that would have another name if it was enabled.
func (p *Plan) aliased(req *Request, alias string) string {
	if p.aliases == nil {
		p.aliases = req.Rootfs.aliases(slices.Concat(req.Options.Services, req.Options.Mask))
	}
	return p.aliases[alias]
}

// aliases finds the units that would have the names of services if they were
// enabled.
func (r *Rootfs) aliases(services []string) map[string]string {
	wanted := map[string]bool{}
	for _, s := range services {
		wanted[unitName(s)] = true
	}
	found := map[string]string{}
	seen := 0
	for _, dir := range unitDirs {
		for _, name := range r.units(dir) {
			if !slices.Contains(unitTypes, path.Ext(name)) {
				continue
			}
			if seen++; seen > maxEntries {
				r.left.err = errTooMuch
				return found
			}
			resolved, err := r.Resolve(path.Join(dir, name))
			if err != nil {
				continue
			}
			data, err := r.read(resolved, maxUnit)
			if err != nil {
				continue
			}
			for line := range bytes.Lines(data) {
				key, value, _ := bytes.Cut(line, []byte("="))
				if string(bytes.TrimSpace(key)) != "Alias" {
					continue
				}
				for alias := range bytes.FieldsSeq(value) {
					if a := string(alias); wanted[a] && found[a] == "" && path.Ext(a) == path.Ext(name) {
						found[a] = name
					}
				}
			}
		}
	}
	return found
}

// masks are the units that must not run: those of the list that were not
// asked for, and those that the options name, with the units that these are
// other names of.
func (p *Plan) masks(req *Request, wanted []string) []string {
	out := slices.DeleteFunc(slices.Clone(masked), func(unit string) bool {
		return slices.ContainsFunc(wanted, func(w string) bool {
			t, ok := template(w)
			return w == unit || ok && t == unit
		})
	})
	_, foreign := req.foreignServices()
	out = append(out, slices.DeleteFunc(foreign, func(unit string) bool { return slices.Contains(out, unit) })...)
	for _, service := range req.Options.Mask {
		unit := unitName(service)
		names := []string{unit}
		if file, found := p.unitFile(req, unit); found && file != os.DevNull {
			names = append(names, req.Rootfs.unitNames(file)...)
		} else if real := p.aliased(req, unit); real != "" {
			names = append(names, real)
		}
		for _, name := range names {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// unitNames are the names that lead to a unit's file, except for those of a
// template: its other instances are other services.
func (r *Rootfs) unitNames(file string) []string {
	if strings.Contains(path.Base(file), "@") {
		return nil
	}
	var names []string
	if name := path.Base(file); isForeignUnit(name) {
		names = append(names, name)
	}
	for _, dir := range unitDirs {
		at, err := r.Resolve(dir)
		if err != nil {
			continue
		}
		for _, name := range r.units(dir) {
			if path.Ext(name) != path.Ext(file) {
				continue
			}
			if resolved, err := r.resolve(at, []string{name}, name); err == nil && resolved == file {
				names = append(names, name)
			}
			if len(names) > maxNames {
				r.left.err = errTooMuch
				return names
			}
		}
	}
	return names
}

const servicesTarget = "rich-services.target"

// serviceUnits start the services that were asked for. The command is ordered
// after their target, which does not wait for ever, and does not fail with
// them.
func serviceUnits(wanted []string) []File {
	units := strings.Join(wanted, " ")
	return []File{text("units/"+servicesTarget,
		"[Unit]",
		"Description=Services that the container asks for",
		"DefaultDependencies=no",
		"Wants="+units,
		"After="+units,
		"Conflicts=shutdown.target",
		"Before=shutdown.target",
		"JobTimeoutSec="+servicesWait,
	)}
}

package initmode

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"containerd-shim-rich/config"
	"containerd-shim-rich/launch"
)

// The environment of the container is the command's alone: sshd, su, cron and the
// inits start what they start with another one. These files give it to
// whoever the command's user is, or root.
const (
	shellEnvFile = "env.sh"
	profileFile  = "profile.sh"
	// profilePath is read by login shells (most distributions'
	// /etc/profile), after what they set themselves; named to be the last.
	profileDir  = "/etc/profile.d"
	profilePath = profileDir + "/zz-rich-env.sh"
)

// exposeEnv adds the files, and the profile's if the image has a place for it.
func (p *Plan) exposeEnv(req *Request, at string) {
	env := environ(req.Spec.Process.Env)
	p.Files = append(p.Files,
		File{Path: launch.EnvironFile, Mode: 0o400, Data: []byte(strings.Join(env, "")), Private: true},
		File{Path: shellEnvFile, Mode: 0o400, Data: shellEnv(env), Private: true},
	)
	if !req.Options.LoginEnv || !p.hasProfiles(req) {
		return
	}
	file := path.Join(at, shellEnvFile)
	p.Files = append(p.Files, text(profileFile,
		"# Made by containerd-shim-rich: the environment of the container, for who may read it.",
		"if [ -r "+file+" ]; then",
		"	. "+file,
		"fi",
	))
	p.Mounts = append(p.Mounts, bindReadOnly(path.Join(req.RunDir, profileFile), profilePath, "noexec"))
}

// hasProfiles reports whether login shells of the image look for profiles,
// and the place is the image's own. In a volume nothing may be made.
func (p *Plan) hasProfiles(req *Request) bool {
	resolved, err := req.Rootfs.Resolve(profileDir)
	if err != nil || resolved != profileDir || !req.Rootfs.IsDir(resolved) {
		return false
	}
	return !slices.ContainsFunc(p.Destinations, func(d string) bool {
		return d == profilePath || Within(resolved, d)
	})
}

// environ is the environment that a process gets, each entry with a NUL at
// its end. Of a name that comes twice the last value counts.
func environ(env []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, kv := range slices.Backward(config.WithoutPouch(env)) {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, kv+"\x00")
	}
	slices.Reverse(out)
	return out
}

// shellName is what a shell can have as a variable.
var shellName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })

// shellOwn are variables that a shell sets itself, refuses to have set, or
// would break with.
var shellOwn = map[string]bool{
	"BASHOPTS": true, "BASH_VERSINFO": true, "EUID": true, "IFS": true, "LINENO": true, "OPTIND": true,
	"PPID": true, "RANDOM": true, "SECONDS": true, "SHELLOPTS": true, "UID": true,
}

// shellEnv is code for any shell of POSIX. Within single quotes nothing has a
// meaning but the quote itself.
func shellEnv(env []string) []byte {
	var b strings.Builder
	for _, kv := range env {
		name, value, _ := strings.Cut(strings.TrimSuffix(kv, "\x00"), "=")
		if !shellName().MatchString(name) || shellOwn[name] {
			continue
		}
		if launch.OfLogin(name) {
			b.WriteString(`[ -n "${` + name + `+x}" ] || `)
		}
		b.WriteString("export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n")
	}
	return []byte(b.String())
}

// hostInterface gives systemd and what asks it the files below /run/host of
// systemd.io/CONTAINER_INTERFACE that hold nothing of the host itself.
func (p *Plan) hostInterface(req *Request) {
	const dir = "/run/host"
	run := p.mounted(req, "/run")
	if run != nil && run.Type != "tmpfs" {
		return // a volume, in which nothing may be made
	}
	if slices.ContainsFunc(p.Destinations, func(d string) bool { return Within(d, dir) }) {
		return
	}
	id := req.MachineID
	p.Files = append(p.Files,
		text("host/container-manager", containerManager),
		text("host/container-uuid", strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")),
	)
	p.Mounts = append(p.Mounts, bindReadOnly(path.Join(req.RunDir, "host"), dir, "noexec"))
}

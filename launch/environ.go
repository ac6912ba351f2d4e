package launch

// EnvironFile holds, beside the launcher, the environment of the container:
// NAME=VALUE, each ended by a NUL byte, as in /proc/PID/environ (proc(5)).
const EnvironFile = "environ"

// ofLogin are variables that say who somebody is and where: login(1), su(1),
// sshd(8) and crond set them, and shells go on from there.
var ofLogin = map[string]bool{
	"HOME": true, "LOGNAME": true, "MAIL": true, "OLDPWD": true, "PWD": true,
	"SHELL": true, "SHLVL": true, "TERM": true, "USER": true, "_": true,
}

// OfLogin reports whether whoever logs in or runs a job keeps a variable of
// that name rather than take it from the container.
func OfLogin(name string) bool { return ofLogin[name] }

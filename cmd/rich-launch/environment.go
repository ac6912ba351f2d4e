package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// environment returns what runc makes of a process's env, in its order: of a
// name that comes twice the last value counts, and HOME comes from
// /etc/passwd if it is missing or empty. An entry without a name is an error,
// as it is for runc. path is the value of PATH.
func environment(env []string, uid uint32) (out []string, path string, err error) {
	seen := make(map[string]bool, len(env))
	home := false
	for _, entry := range slices.Backward(env) {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, "", fmt.Errorf("environment entry %s has no name", quote(entry))
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		switch name {
		case "PATH":
			path = value
		case "HOME":
			if value == "" {
				continue
			}
			home = true
		}
		out = append(out, entry)
	}
	slices.Reverse(out)
	if !home {
		out = append(out, "HOME="+homeOf(uid, "/etc/passwd"))
	}
	return out, path, nil
}

// homeOf returns the home directory of the first user with that uid in a
// passwd file, and "/" if there is none or the file cannot be read. A line may
// lack fields; a uid that is no number counts as 0, as it does for runc.
func homeOf(uid uint32, passwd string) string {
	const fallback = "/"
	file, err := os.Open(passwd)
	if err != nil {
		return fallback
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		// name:password:UID:GID:GECOS:directory:shell, of passwd(5)
		fields := append(strings.Split(line, ":"), make([]string, 6)...)
		if n, _ := strconv.Atoi(fields[2]); n == int(uid) {
			return fields[5]
		}
	}
	return fallback
}

package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"containerd-shim-rich/launch"
)

// env becomes a program with the environment of the container, for who may
// read that: root and the command's user. What says who they are stays, see
// [launch.OfLogin], and so does what the container has no variable for. It
// returns the exit status if it cannot.
func env(args []string) int {
	args = program(args)
	if len(args) == 0 {
		return misused()
	}
	data, err := os.ReadFile(path.Join(path.Dir(os.Args[0]), launch.EnvironFile))
	if err != nil {
		complain(os.Stderr, fmt.Sprintf("read the environment of the container: %v", err))
		return exitLauncher
	}
	environ := overlay(os.Environ(), strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"))
	return execProgram(args, value(environ, "PATH"), environ)
}

// overlay returns own with the variables of the container.
func overlay(own, container []string) []string {
	at := make(map[string]int, len(own)+len(container))
	out := slices.Clone(own)
	for i, kv := range own {
		name, _, _ := strings.Cut(kv, "=")
		at[name] = i
	}
	for _, kv := range container {
		name, _, ok := strings.Cut(kv, "=")
		if !ok {
			continue // an empty file
		}
		i, have := at[name]
		switch {
		case !have:
			out = append(out, kv)
		case !launch.OfLogin(name):
			out[i] = kv
		}
	}
	return out
}

func value(environ []string, name string) string {
	for _, kv := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

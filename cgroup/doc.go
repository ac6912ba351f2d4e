// Package cgroup ends and removes the cgroups of a container, of both
// versions, whatever the container has made of them.
//
// A container that may write to its cgroups can nest them as deep as it likes
// on cgroup v1, and 255 bytes per level deep everywhere: no path reaches what
// lies there (PATH_MAX, path_resolution(7)). So nothing here goes by a path of
// more than one component below the directory that the host has chosen.
package cgroup

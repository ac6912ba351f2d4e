// Package cgroup is all that the shim knows about cgroups, and the only place
// that tells v1 from v2: the fence around those of a container, the shares of
// its components, what it has used, its kills for want of memory, and the end of
// all of them whatever the container has made of them.
//
// A container that may write to its cgroups can nest them as deep as it likes
// on cgroup v1, and 255 bytes per level deep everywhere: no path reaches what
// lies there (PATH_MAX, path_resolution(7)). So nothing that ends or removes
// them goes by a path of more than one component below the directory that the
// host has chosen.
package cgroup

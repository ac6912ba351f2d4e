// Package bundle is what this runtime keeps in the directory that containerd
// makes for a container: files that outlive a shim, and the file system that the
// container sees at /run/rich. It notes what is made elsewhere for the container,
// so that whoever cleans up finds it.
package bundle

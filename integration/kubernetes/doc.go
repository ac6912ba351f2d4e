// Package kubernetes tests the shim under a real kubelet: a control plane and one node in private namespaces, whose
// containerd has the RuntimeClass of deploy/kubernetes.
//
// The harness is in main_test.go (the run), cluster_test.go (the node), pod_test.go (pods) and host_test.go (what the host
// must look like afterwards). Run it with "make test-kubernetes".
//
// It is a module of its own, so that the product does not depend on Kubernetes. Of the product's it has package daemon, which
// runs its programs.
package kubernetes

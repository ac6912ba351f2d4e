package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"containerd-shim-rich/integration/daemon"
)

const (
	nodeName    = "node1"
	nodeAddress = "10.123.0.1"
	// podNamespace is where all pods of the tests are; it is also kubectl's default.
	podNamespace = "default"
)

// cluster is a control plane and one node. All of it runs in the namespaces of this process.
type cluster struct {
	// run is the folder of this run, etc and log are folders in it.
	run, etc, log string

	client kubernetes.Interface
	config *rest.Config

	containerd, kubelet *daemon.Daemon
}

// readyLimit bounds the wait for one program of the cluster.
const readyLimit = 3 * time.Minute

// component is one program of the cluster.
func (n *cluster) component(name string, arguments ...string) *daemon.Daemon {
	return &daemon.Daemon{Name: name, Args: arguments, Log: filepath.Join(n.log, name+".log")}
}

func program(name string) string { return buildPath("kubernetes/programs/" + name) }

// startCluster starts everything and returns when pods can be made.
func startCluster(run string) (*cluster, error) {
	n := &cluster{run: run, etc: filepath.Join(run, "cluster"), log: buildPath("kubernetes/log")}
	if err := errors.Join(os.RemoveAll(n.log), os.MkdirAll(n.log, 0o755), os.MkdirAll(n.etc, 0o755)); err != nil {
		return nil, err
	}
	if err := errors.Join(n.writeCredentials(), n.writeContainerd(), n.writeKubelet(), n.installPrograms(), n.serviceManager()); err != nil {
		return nil, err
	}
	etc := func(name string) string { return filepath.Join(n.etc, name) }

	etcd := n.component("etcd", program("etcd"), "--data-dir", filepath.Join(run, "etcd"),
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn")
	n.containerd = n.component("containerd", "containerd")
	server := n.component("kube-apiserver", program("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=127.0.0.1", "--advertise-address="+nodeAddress, "--secure-port=6443",
		"--tls-cert-file="+etc("server.crt"), "--tls-private-key-file="+etc("server.key"), "--service-cluster-ip-range=10.96.0.0/24",
		"--token-auth-file="+etc("tokens"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+etc("server.key"),
		"--service-account-signing-key-file="+etc("server.key"),
		"--kubelet-client-certificate="+etc("client.crt"), "--kubelet-client-key="+etc("client.key"),
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true", "--endpoint-reconciler-type=none")
	manager := n.component("kube-controller-manager", program("kube-controller-manager"),
		"--kubeconfig="+etc("manager.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file="+etc("server.key"),
		"--root-ca-file="+etc("server.crt"))
	scheduler := n.component("kube-scheduler", program("kube-scheduler"),
		"--kubeconfig="+etc("scheduler.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false")
	n.kubelet = n.kubeletComponent()

	for _, c := range []*daemon.Daemon{etcd, n.containerd} {
		if err := c.Start(); err != nil {
			return nil, err
		}
	}
	if err := etcd.Ready(readyLimit, func() error { return get("http://127.0.0.1:2379/health") }); err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	if err := n.containerdReady(); err != nil {
		return nil, err
	}
	for _, image := range []string{"pause", "busybox", "debian-bookworm", "rich-installer"} {
		output, err := exec.Command("ctr", "-n", "k8s.io", "images", "import", buildPath("images/"+image+".tar")).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("import %s: %w\n%s", image, err, output)
		}
	}
	var err error
	if n.config, err = clientcmd.BuildConfigFromFlags("", n.kubeconfig()); err != nil {
		return nil, err
	}
	n.config.QPS, n.config.Burst = 100, 200
	if n.client, err = kubernetes.NewForConfig(n.config); err != nil {
		return nil, err
	}
	err = server.Ready(readyLimit, func() error {
		return n.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	})
	if err != nil {
		return nil, err
	}
	for _, c := range []*daemon.Daemon{manager, scheduler, n.kubelet} {
		if err := c.Start(); err != nil {
			return nil, err
		}
	}
	if err := n.kubelet.Ready(readyLimit, n.nodeReady); err != nil {
		return nil, err
	}
	err = manager.Ready(readyLimit, func() error {
		_, err := n.client.CoreV1().ServiceAccounts(podNamespace).Get(context.Background(), "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	output, err := n.kubectl("apply", "-f", treePath("deploy/kubernetes/runtimeclass.yaml")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("apply the RuntimeClass: %w\n%s", err, output)
	}
	return n, nil
}

func get(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func (n *cluster) kubeconfig() string { return filepath.Join(n.etc, "admin.kubeconfig") }

// kubectl is a command of the cluster's administrator.
func (n *cluster) kubectl(arguments ...string) *exec.Cmd {
	return exec.Command(program("kubectl"), append([]string{"--kubeconfig=" + n.kubeconfig()}, arguments...)...)
}

func (n *cluster) containerdReady() error {
	return n.containerd.Ready(readyLimit, func() error {
		output, err := exec.Command("ctr", "version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
}

// nodeReady tells why the node takes no pods.
func (n *cluster) nodeReady() error {
	found, err := n.client.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range found.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("node %s: %v", nodeName, found.Status.Conditions)
}

// installPrograms installs ours as "make install" does, and what they run beside; /usr/local is private.
func (n *cluster) installPrograms() error {
	// Nothing is built again: here are neither a network nor the machine's packages.
	install := exec.Command("make", "--silent", "--old-file=build", "install")
	install.Dir = treePath("")
	if output, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("make install: %w\n%s", err, output)
	}
	for _, file := range []string{"tools/containerd", "tools/ctr", "suites/programs/runc", "suites/programs/containerd-shim-runc-v2"} {
		if output, err := exec.Command("install", "-t", "/usr/local/bin", buildPath(file)).CombinedOutput(); err != nil {
			return fmt.Errorf("install %s: %w\n%s", file, err, output)
		}
	}
	return nil
}

// writeContainerd writes containerd's configuration. What makes the RuntimeClass is the file of deploy/kubernetes alone.
func (n *cluster) writeContainerd() error {
	dropIn, err := os.ReadFile(treePath("deploy/kubernetes/rich.toml"))
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll("/etc/containerd/conf.d", 0o755), os.MkdirAll("/etc/cni/net.d", 0o755)); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile("/etc/containerd/conf.d/rich.toml", dropIn, 0o644),
		os.WriteFile(hostFile, []byte(allowRootInit), 0o644),
		os.WriteFile("/etc/containerd/config.toml", []byte(strings.ReplaceAll(`version = 3
imports = ['/etc/containerd/conf.d/*.toml']
disabled_plugins = ['io.containerd.nri.v1.nri']
oom_score = 0

[debug]
  level = 'debug'

[plugins.'io.containerd.internal.v1.opt']
  path = 'RUN/opt'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:latest'

[plugins.'io.containerd.cri.v1.runtime']
  # Root of a container can lack the right to lower the score.
  restrict_oom_score_adj = true

  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni']
`, "RUN", n.run)), 0o644),
		os.WriteFile("/etc/cni/net.d/10-bridge.conflist", []byte(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.124.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`), 0o644))
}

func (n *cluster) writeKubelet() error {
	return os.WriteFile(filepath.Join(n.etc, "kubelet.yaml"), []byte(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: `+nodeAddress+`
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: `+filepath.Join(n.etc, "client.crt")+`}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
makeIPTablesUtilChains: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
volumePluginDir: /var/lib/kubelet/volume-plugins
`), 0o644)
}

// kubeletSysctls are what the kubelet writes. It gets files instead, in a mount namespace of its own: below the /proc of
// containerd they would keep the kernel from mounting a new one in a user namespace.
const kubeletSysctls = "vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"

func (n *cluster) kubeletComponent() *daemon.Daemon {
	return n.component("kubelet", "unshare", "--mount", "--propagation=unchanged", "bash", "-euc", `
		mount --make-private /proc
		for name in `+kubeletSysctls+`; do
			file=$0/sysctls/$name
			mkdir -p "${file%/*}"
			cat "/proc/sys/$name" >"$file"
			mount --bind "$file" "/proc/sys/$name"
		done
		exec "$@"`, n.run,
		program("kubelet"), "--config="+filepath.Join(n.etc, "kubelet.yaml"), "--kubeconfig="+filepath.Join(n.etc, "kubelet.kubeconfig"),
		"--hostname-override="+nodeName, "--node-ip="+nodeAddress, "--v=2")
}

// writeCredentials writes a certificate for the server, which is also its own authority and signs the tokens of service
// accounts, one for the server as the kubelet's client, and a token for everybody else.
func (n *cluster) writeCredentials() error {
	err := errors.Join(
		writeCertificate(filepath.Join(n.etc, "server"), pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth, "127.0.0.1", "10.96.0.1"),
		writeCertificate(filepath.Join(n.etc, "client"), pkix.Name{CommonName: "apiserver", Organization: []string{"system:masters"}}, x509.ExtKeyUsageClientAuth))
	if err != nil {
		return err
	}
	var tokens strings.Builder
	for _, user := range []struct{ file, name, group string }{
		{"admin", "admin", "system:masters"},
		{"manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"kubelet", "system:node:" + nodeName, "system:nodes"},
	} {
		random := make([]byte, 16)
		_, _ = rand.Read(random) // never fails (crypto/rand)
		token := hex.EncodeToString(random)
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, user.name, user.name, user.group)
		err := os.WriteFile(filepath.Join(n.etc, user.file+".kubeconfig"), []byte(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", certificate-authority: `+filepath.Join(n.etc, "server.crt")+`}}]
users: [{name: test, user: {token: `+token+`}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
`), 0o600)
		if err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(n.etc, "tokens"), []byte(tokens.String()), 0o600)
}

// checkEmpty waits until no container, shim or mount of one is left.
func (n *cluster) checkEmpty() error {
	return poll(podLimit, func() error {
		containers, err := exec.Command("ctr", "-n", "k8s.io", "containers", "ls", "-q").Output()
		if err != nil {
			return err
		}
		if len(containers) > 0 {
			return fmt.Errorf("containers are left:\n%s", containers)
		}
		var left []string
		commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, file := range commands {
			if line, _ := os.ReadFile(file); strings.Contains(string(line), "containerd-shim") {
				left = append(left, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, "io.containerd.runtime.v2.task") {
				left = append(left, strings.TrimSpace(line))
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("shims or mounts are left:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

func within(t testing.TB, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

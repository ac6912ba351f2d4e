#!/bin/bash
# Inside namespaces.sh: a registry, a containerd with TYPE as the only runtime, and critest. Writes critest.log,
# critest.xml and containerd.log into RUN.
# usage: critest.sh CRITEST_ARGUMENTS...
set -euo pipefail
: "${RUN:?}" "${TYPE:?}" "${IMAGES:?}"
here=$(dirname "$(realpath "$0")")

mkdir -p "$RUN"/{registry/_default,cni/net.d,cni/data}
cat >"$RUN/registry/_default/hosts.toml" <<'TOML'
[host."http://127.0.0.1:5000"]
  capabilities = ["pull", "resolve"]
TOML
cat >"$RUN/cni/net.d/10-suites.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "suites", "plugins": [
  {"type": "bridge", "bridge": "cnis0", "isGateway": true, "ipMasq": true, "promiscMode": true,
    "ipam": {"type": "host-local", "dataDir": "$RUN/cni/data",
      "ranges": [[{"subnet": "10.88.77.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
cat >"$RUN/containerd.toml" <<TOML
version = 3
root = "$RUN/root"
state = "$RUN/state"
[grpc]
  address = "$RUN/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$RUN/registry"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$RUN/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "suites"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.suites]
  runtime_type = "$TYPE"
[plugins."io.containerd.nri.v1.nri"]
  socket_path = "$RUN/nri.sock"
  plugin_path = "$RUN/nri/plugins"
  plugin_config_path = "$RUN/nri/conf.d"
TOML

"$here/registry.sh"
containerd --config "$RUN/containerd.toml" --log-level debug >"$RUN/containerd.log" 2>&1 &
daemon=$!
for ((tries = 0; ; tries++)); do
	! ctr --address "$RUN/containerd.sock" version >/dev/null 2>&1 || break
	if ((tries == 300)) || ! kill -0 "$daemon" 2>/dev/null; then
		echo "critest: containerd does not serve:" >&2
		tail -n 20 "$RUN/containerd.log" >&2
		exit 1
	fi
	sleep 0.1
done

rc=0
critest --config /dev/null --runtime-endpoint "unix://$RUN/containerd.sock" --runtime-handler suites \
	--nri-socket "$RUN/nri.sock" --ginkgo.junit-report="$RUN/critest.xml" --ginkgo.no-color "$@" >"$RUN/critest.log" 2>&1 || rc=$?
kill "$daemon"
wait "$daemon" || true
"$here/leftovers.sh" "$RUN/"
exit "$rc"

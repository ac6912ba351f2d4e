#!/bin/bash
# Builds Kubernetes as its tools module names it, and takes etcd from Debian, into FOLDER. Minutes the first time.
# usage: programs.sh FOLDER
set -euo pipefail
output=$(realpath -m "$1")
root=$(realpath "$(dirname "$(realpath "$0")")/../..")

"$root/scripts/need-packages.sh" ca-certificates
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Unpacked, not installed: the package would start etcd on this machine.
download() { (cd "$work" && apt-get download -q -o APT::Sandbox::User=root etcd-server); }
download || {
	echo "refreshing the package lists"
	apt-get update -q
	download
}
dpkg-deb --extract "$work"/etcd-server_*.deb "$work/etcd"
cp "$work/etcd/usr/bin/etcd" "$output/"

# A build from the module proxy knows no version, and kubectl and the API server compare theirs.
version=$(cd "$root/integration/tools/kubernetes" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
names=k8s.io/component-base/version
CGO_ENABLED=0 "$root/scripts/build-tool.sh" "$root/integration/tools/kubernetes" "$output" -trimpath \
	-ldflags "-s -w -X $names.gitVersion=$version -X $names.gitMajor=1 -X $names.gitMinor=${minor%%.*}" tool

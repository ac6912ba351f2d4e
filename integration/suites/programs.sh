#!/bin/bash
# Builds the suites, the stock shim and runc into FOLDER, each from its own module and with that module's own dependencies,
# so that they are what their projects publish. Minutes the first time.
# usage: programs.sh FOLDER
set -euo pipefail
output=$(realpath -m "$1")
scripts=$(dirname "$(realpath "$0")")/../../scripts

cri_tools=1.37.0
containerd=2.4.2
runc=1.5.2

"$scripts/need-packages.sh" gcc libc6-dev libseccomp-dev pkg-config ca-certificates
mkdir -p "$output"
part=$output/.programs.part
rm -rf "$part"
mkdir "$part"
trap 'rm -rf "$part"' EXIT

# module MODULE VERSION: downloads it, checked by Go's checksum database, and prints its folder.
module() {
	go mod download -json "$1@v$2" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}
# build NAME COMMAND...: runs it where it belongs; it writes $part/NAME.
build() {
	local name=$1 started=$SECONDS
	shift
	echo "building $name"
	(cd "$folder" && "$@")
	echo "built $name in $((SECONDS - started)) s"
}

folder=$(module github.com/opencontainers/runc "$runc")
build runc go build -trimpath -buildvcs=false -tags seccomp -ldflags "-X main.version=$runc" -o "$part/runc" .

folder=$(module github.com/containerd/containerd/v2 "$containerd")
build containerd-shim-runc-v2 env CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags "-X github.com/containerd/containerd/v2/version.Version=$containerd" \
	-o "$part/containerd-shim-runc-v2" ./cmd/containerd-shim-runc-v2
# A runc that fails on purpose, for two tests of the client suite.
build runc-fp go build -trimpath -buildvcs=false -o "$part/runc-fp" ./integration/failpoint/cmd/runc-fp
build client.test go test -c -o "$part/client.test" ./integration/client
# The suite reads its test data relative to where it runs.
cp -r "$folder/integration/client/testdata" "$part/testdata"
chmod -R u+w "$part/testdata"

folder=$(module sigs.k8s.io/cri-tools "$cri_tools")
build critest go test -c -ldflags "-X sigs.k8s.io/cri-tools/pkg/version.Version=$cri_tools" -o "$part/critest" ./cmd/critest

rm -rf "$output/testdata"
mv "$part"/* "$output/"

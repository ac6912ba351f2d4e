#!/bin/bash
# Takes containerd 1.6 out of the package of Debian 12, whatever this machine runs. It needs the C library of Debian 12 or newer.
# usage: containerd-1.6.sh OUTPUT
set -euo pipefail
output=$(realpath -m "$1")
scripts=$(dirname "$(realpath "$0")")/../../scripts

"$scripts/need-packages.sh" mmdebstrap debian-archive-keyring ca-certificates
mirror=$("$scripts/debian-mirror.sh")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching containerd of Debian bookworm from $mirror"
# The variant extract unpacks the named package with what it needs, and configures nothing.
mmdebstrap --quiet --mode=root --variant=extract --format=directory --include=containerd \
	--aptopt='Acquire::Languages "none"' bookworm "$work/root" \
	"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main"
says=$("$work/root/usr/bin/containerd" --version)
if [[ $says != *" 1.6."* ]]; then
	echo "containerd-1.6: the package holds '$says'" >&2
	exit 1
fi
install -D -m 0755 "$work/root/usr/bin/containerd" "$output.part"
mv "$output.part" "$output"
echo "fetched $says"

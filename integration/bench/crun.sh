#!/bin/bash
# Unpacks the newest crun of Debian, with the libraries it needs, into FOLDER, and makes it run from there. That of Debian 12
# is older than runtime-spec 1.3, which containerd 2.4 writes.
# usage: crun.sh FOLDER
set -euo pipefail
output=$(realpath -m "$1")
scripts=$(dirname "$(realpath "$0")")/../../scripts

"$scripts/need-packages.sh" mmdebstrap debian-archive-keyring ca-certificates patchelf
mirror=$("$scripts/debian-mirror.sh")
part=$output.part
rm -rf "$part" "$output"
mkdir -p "$(dirname "$output")"
trap 'rm -rf "$part"' EXIT

# A machine whose clock or mirror is not of today must still get it. Signatures are checked all the same.
mmdebstrap --mode=root --variant=extract --include=crun --aptopt='Acquire::Check-Valid-Until "false"' sid "$part" \
	"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main"
loader=$(patchelf --print-interpreter "$part/usr/bin/crun")
libraries=$(dirname "$(cd "$part" && find usr/lib -name 'libc.so.6' -print -quit)")
patchelf --set-interpreter "$output/usr$loader" --force-rpath --set-rpath "$output/$libraries" "$part/usr/bin/crun"
mv "$part" "$output"
"$output/usr/bin/crun" --version

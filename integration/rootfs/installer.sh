#!/bin/bash
# Builds the root file system tar of the installer for Kubernetes: busybox, and the programs in /programs.
# usage: installer.sh BUSYBOX.tar PROGRAM_FOLDER OUTPUT.tar
set -euo pipefail
output=$(realpath -m "$3")
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
mkdir -p "$work/programs" "$(dirname "$output")"
install -m 0755 -t "$work/programs" "$2"/{containerd-shim-rich-v2,rich-launch,dumb-init}
cp "$1" "$output.part"
tar --append --file="$output.part" --directory="$work" --sort=name --mtime=@1735689600 --owner=0 --group=0 --numeric-owner ./programs
mv "$output.part" "$output"
echo "built $(basename "$output")"

#!/bin/bash
# Builds a root file system tar that holds one static program, /pause: that of a pod's sandbox.
# usage: pause.sh PAUSE.c OUTPUT.tar
set -euo pipefail
source=$(realpath "$1")
output=$(realpath -m "$2")
scripts=$(dirname "$(realpath "$0")")/../../scripts

"$scripts/need-packages.sh" gcc libc6-dev
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
mkdir -p "$(dirname "$output")" "$work/root"
chmod 0755 "$work/root"
gcc -std=gnu11 -Os -static -s -Wall -Wextra -Werror -o "$work/root/pause" "$source"
"$scripts/tar-root.sh" "$work/root" "$output.part"
mv "$output.part" "$output"
echo "built $(basename "$output")"

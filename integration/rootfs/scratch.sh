#!/bin/bash
# Builds a root file system tar that holds one static program, /hello, and no folder at all.
# usage: scratch.sh OUTPUT.tar
set -euo pipefail
output=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
scripts=$here/../../scripts

"$scripts/need-packages.sh" gcc libc6-dev
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
mkdir -p "$(dirname "$output")" "$work/root"
chmod 0755 "$work/root"
gcc -std=c11 -static -s -O2 -Wall -Wextra -Werror -o "$work/root/hello" "$here/hello.c"
"$scripts/tar-root.sh" "$work/root" "$output.part"
mv "$output.part" "$output"
echo "built $(basename "$output")"

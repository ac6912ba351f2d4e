#!/bin/bash
# Packs FOLDER/payload.img, the disk with the test program and all that it looks for in build/.
# usage: payload.sh BUILD_FOLDER FOLDER
set -euo pipefail
build=$(realpath "$1")
output=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
repository=$(realpath "$here/../..")

staged=$output/payload
rm -rf "$staged"
trap 'rm -rf "$staged" "$output/payload.img.part"' EXIT
mkdir -p "$staged/build/tools" "$staged/integration"
cp --archive --link "$build/bin" "$build/images" "$staged/build/"
cp --archive --link "$build/tools/containerd" "$build/tools/ctr" "$staged/build/tools/"
cp --archive --link "$output/integration.test" "$staged/integration/"
cp --archive "$repository/README.md" "$repository/docs" "$staged/"

rm -f "$output/payload.img.part"
truncate -s "$(($(du -sm "$staged" | cut -f1) + 256))M" "$output/payload.img.part"
mke2fs -q -F -t ext4 -d "$staged" -m 0 -O '^has_journal,^metadata_csum' -E lazy_itable_init=1,nodiscard "$output/payload.img.part"
mv "$output/payload.img.part" "$output/payload.img"

#!/bin/bash
# Builds the programs of a tools module of this repository into FOLDER.
# usage: build-tool.sh MODULE_FOLDER FOLDER GO_BUILD_ARGUMENTS...
set -euo pipefail
module=$1
mkdir -p "$2"
output=$(realpath "$2")
shift 2

echo "building $(basename "$module") (minutes, the first time)"
part=$output/.$(basename "$module").part
rm -rf "$part"
mkdir "$part"
trap 'rm -rf "$part"' EXIT
started=$SECONDS
(cd "$module" && go build -o "$part/" "$@")
mv "$part"/* "$output/"
echo "built $(basename "$module") in $((SECONDS - started)) s"

#!/bin/bash
# Builds a root file system tar of Debian SUITE with the packages of debian-SUITE.packages, or debian-SUITE-NAME.packages.
# Services are what Debian enables at install; nothing in the image is prepared for running in a container.
# usage: debian.sh SUITE[-NAME] OUTPUT.tar
set -euo pipefail
suite=${1%%-*}
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
scripts=$here/../../scripts

"$scripts/need-packages.sh" mmdebstrap debian-archive-keyring ca-certificates
mapfile -t packages < <(grep -v '^#' "$here/debian-$1.packages")
mirror=$("$scripts/debian-mirror.sh")

mkdir -p "$(dirname "$output")"
part=$output.part
empty=$(mktemp -d)
trap 'rm -rf "$part" "$empty"' EXIT

# Newer files get this time, so that the same packages give the same tar.
export SOURCE_DATE_EPOCH=1735689600

# shellcheck disable=SC2016 # the hook's $1 is mmdebstrap's
options=(
	--mode=root --variant=minbase --format=tar
	--include="$(IFS=,; echo "${packages[*]}")"
	--skip=output/dev
	--aptopt='Acquire::Languages "none"'
	--dpkgopt='path-exclude=/usr/share/man/*'
	--dpkgopt='path-exclude=/usr/share/info/*'
	--dpkgopt='path-exclude=/usr/share/locale/*'
	--dpkgopt='path-exclude=/usr/share/doc/*'
	--dpkgopt='path-include=/usr/share/doc/*/copyright'
	--dpkgopt=force-unsafe-io
	# mmdebstrap copies both from this machine; they belong to whoever runs the image.
	--customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
)
# A machine whose clock or mirror is not of today must still get the rolling suite. Signatures are checked all the same.
[[ $suite != sid ]] || options+=(--aptopt='Acquire::Check-Valid-Until "false"')

echo "building Debian $suite from $mirror: ${packages[*]}"
# The keyring is named, because finding out which one apt would use needs gpg.
mmdebstrap "${options[@]}" "$suite" "$part" \
	"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
# Without its device nodes mmdebstrap leaves out the folder too, which every image has.
mkdir -m 0755 "$empty/dev"
tar --append --file="$part" --directory="$empty" --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner ./dev
mv "$part" "$output"
echo "built $(basename "$output"), $(($(stat -c %s "$output") >> 20)) MiB"

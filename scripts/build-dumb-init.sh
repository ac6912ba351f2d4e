#!/bin/bash
# Builds a static dumb-init from the upstream tarball of Debian's source package.
# Debian's own binary is dynamic and would not run in an image without a libc.
# usage: build-dumb-init.sh OUTPUT LICENSE_OUTPUT
set -euo pipefail
output=$(realpath -m "$1")
license=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
minimum=1.2.5

"$here/need-packages.sh" gcc libc6-dev dpkg-dev debian-archive-keyring ca-certificates file xxd

mirror=$("$here/debian-mirror.sh")
# shellcheck source=/dev/null
codename=$(. /etc/os-release && [[ $ID == debian ]] && echo "$VERSION_CODENAME" || echo stable)
mkdir -p "$(dirname "$output")" "$(dirname "$license")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A private apt state: the machine's sources stay as they are, signatures are still checked.
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/source
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $codename main" >"$work/sources.list"
apt=(apt-get -q
	-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
	-o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
	-o APT::Sandbox::User=root)
echo "fetching the source of dumb-init from $mirror"
"${apt[@]}" update
(cd "$work/source" && "${apt[@]}" source --download-only --tar-only dumb-init)

tarballs=("$work"/source/dumb-init_*.orig.tar.*)
if ((${#tarballs[@]} != 1)) || [[ ! -f ${tarballs[0]} ]]; then
	echo "build-dumb-init: expected one upstream tarball, found: ${tarballs[*]}" >&2
	exit 1
fi
tar -xf "${tarballs[0]}" -C "$work/source" --strip-components=1
cd "$work/source"
version=$(<VERSION)
if [[ $(printf '%s\n' "$minimum" "$version" | sort -V | head -n1) != "$minimum" ]]; then
	echo "build-dumb-init: version $version is older than $minimum" >&2
	exit 1
fi

# VERSION.h is upstream's generated file: the bytes of VERSION as a C array.
[[ -f VERSION.h ]] || xxd -i VERSION >VERSION.h
gcc -std=gnu99 -static -s -Wall -Werror -O2 -o dumb-init dumb-init.c

if ! file -b dumb-init | grep -q 'statically linked'; then
	echo "build-dumb-init: not static: $(file -b dumb-init)" >&2
	exit 1
fi
says=$(./dumb-init --version 2>&1)
if [[ $says != "dumb-init v$version"* ]]; then
	echo "build-dumb-init: --version says '$says', expected v$version" >&2
	exit 1
fi
if [[ $(./dumb-init sh -c 'exit 42'; echo $?) != 42 ]]; then
	echo "build-dumb-init: the built binary does not pass an exit code on" >&2
	exit 1
fi

install -m 0644 LICENSE "$license.part"
mv "$license.part" "$license"
install -m 0755 dumb-init "$output.part"
mv "$output.part" "$output"
echo "built $says, static, $(stat -c %s "$output") bytes"

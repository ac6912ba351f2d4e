#!/bin/bash
# Builds a static busybox from Debian's source, with every applet of its default configuration: the suites call some that
# Debian's busybox-static leaves out (ipcs), and expect a shell that runs applets through PATH, as the official image's does.
# usage: busybox.sh OUTPUT
set -euo pipefail
output=$(realpath -m "$1")
scripts=$(dirname "$(realpath "$0")")/../../scripts
suite=bookworm

"$scripts/need-packages.sh" gcc libc6-dev make patch bzip2 xz-utils debian-archive-keyring ca-certificates
mirror=$("$scripts/debian-mirror.sh")
mkdir -p "$(dirname "$output")"
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
cd "$work"

# apt checks the signature of the list and the sums of the files. This machine's own sources stay as they are.
mkdir -p lists/partial
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >sources.list
apt_options=(
	-q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root
)
echo "downloading the source of busybox from $mirror"
apt-get "${apt_options[@]}" update
apt-get "${apt_options[@]}" source --download-only busybox

mkdir source
tar -xf busybox_*.orig.tar.* --strip-components=1 -C source
cd source
tar -xf ../busybox_*.debian.tar.*
while read -r change; do
	[[ -z $change || $change == \#* ]] || patch -sp1 <"debian/patches/$change"
done <debian/patches/series

echo "building busybox (minutes)"
started=$SECONDS
make -s defconfig >/dev/null
# tc does not compile with the headers of newer kernels.
sed -i -e 's/^# CONFIG_STATIC is not set$/CONFIG_STATIC=y/' -e 's/^CONFIG_TC=y$/# CONFIG_TC is not set/' .config
grep -qx 'CONFIG_STATIC=y' .config
# Answers the questions that the change of the two opens, each with its default.
(yes '' || true) | make -s oldconfig >/dev/null
if grep -qE '^CONFIG_FEATURE_(SH_STANDALONE|PREFER_APPLETS)=y$' .config; then
	echo "busybox: the shell would run applets itself, which the suites do not expect" >&2
	exit 1
fi
make -s -j"$(nproc)" busybox >build.log 2>&1 || {
	tail -n 30 build.log >&2
	exit 1
}
install -m 0755 busybox "$output.part"
mv "$output.part" "$output"
echo "built $("$output" | sed -n 1p | cut -d' ' -f1-2) in $((SECONDS - started)) s"

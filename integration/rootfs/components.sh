#!/bin/bash
# Builds the folders of two agents of Debian, each with the libraries it needs, so that it runs in an image that has none.
#   node-exporter  Prometheus' exporter of machine metrics
#   rsyslog        rsyslogd with imfile, which follows log files
# usage: components.sh OUTPUT-FOLDER
set -euo pipefail
output=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
scripts=$here/../../scripts

"$scripts/need-packages.sh" mmdebstrap debian-archive-keyring ca-certificates
mirror=$("$scripts/debian-mirror.sh")
suite=bookworm

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "building the agents from Debian $suite"
# The packages are only unpacked. Other dependencies than libraries are not needed.
mmdebstrap --mode=root --variant=extract --format=directory \
	--include=prometheus-node-exporter,rsyslog,libc6,libestr0,libfastjson4,liblognorm5,libuuid1,zlib1g,libsystemd0,libcap2,libgcrypt20,libgpg-error0,liblz4-1,liblzma5,libzstd1 \
	--aptopt='Acquire::Languages "none"' \
	"$suite" "$work/root" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"

# libraries FOLDER PROGRAM...: copies the dynamic linker and the libraries of programs to FOLDER/lib
libraries() {
	local folder=$1 library
	shift
	mkdir -p "$folder/lib"
	while read -r library; do
		cp -L "$work/root$library" "$folder/lib/"
	done < <(for program in "$@"; do chroot "$work/root" /lib64/ld-linux-x86-64.so.2 --list "$program"; done |
		awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' | sort -u)
	cp -L "$work/root/lib64/ld-linux-x86-64.so.2" "$folder/lib/"
}

made=$work/made
mkdir -p "$made/node-exporter/bin" "$made/rsyslog/bin" "$made/rsyslog/modules"
cp "$work/root/usr/bin/prometheus-node-exporter" "$made/node-exporter/bin/"
libraries "$made/node-exporter" /usr/bin/prometheus-node-exporter

cp "$work/root/usr/sbin/rsyslogd" "$made/rsyslog/bin/"
cp "$work"/root/usr/lib/x86_64-linux-gnu/rsyslog/{imfile,lmnet}.so "$made/rsyslog/modules/"
libraries "$made/rsyslog" /usr/sbin/rsyslogd /usr/lib/x86_64-linux-gnu/rsyslog/imfile.so

chmod -R u=rwX,go=rX "$made"
rm -rf "$output"
mkdir -p "$(dirname "$output")"
mv "$made" "$output"
echo "built $(basename "$output"), $(du -sm "$output" | cut -f1) MiB"

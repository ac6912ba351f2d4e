#!/bin/bash
# Builds what the VM boots: FOLDER/vmlinuz and FOLDER/root.img, Debian's cloud kernel and a root file system with systemd.
# That kernel has the drivers for NVMe and ext4 built in, so it needs no initrd; the one module that is needed is overlay.
# usage: disk.sh ROOTFS.tar FOLDER
set -euo pipefail
rootfs=$(realpath "$1")
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
scripts=$here/../../scripts

arch=$(dpkg --print-architecture)
if [[ $arch != amd64 ]]; then
	echo "disk.sh: the VM is a PC; this machine is $arch, not amd64" >&2
	exit 1
fi
"$scripts/need-packages.sh" e2fsprogs xz-utils
mkdir -p "$output"
work=$(mktemp -d "$output/.disk.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The metapackage names the package of the current version. Downloaded, not installed: only two of its files are needed.
download() {
	local package
	package=$(apt-cache depends --no-recommends --no-suggests "linux-image-cloud-$arch" 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	[[ -n $package ]] && (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package")
}
download || {
	echo "refreshing the package lists"
	apt-get update -q
	download
}
mkdir "$work/kernel" "$work/root"
dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb |
	tar --extract --directory="$work/kernel" --wildcards './boot/vmlinuz-*' './lib/modules/*/kernel/fs/overlayfs/overlay.ko*'

root=$work/root
tar --extract --file="$rootfs" --directory="$root" --numeric-owner
install -m 0755 "$here/guest.sh" "$root/usr/local/sbin/integration"
install -m 0644 "$here/integration.service" "$root/etc/systemd/system/"
# Debian 13 has it compressed.
find "$work/kernel/lib" -name 'overlay.ko.xz' -exec unxz {} +
find "$work/kernel/lib" -name 'overlay.ko' -exec install -m 0644 -t "$root/usr/local/lib" {} +
: >"$root/etc/fstab"
mkdir -p "$root/payload" "$root/etc/systemd/system.conf.d"
# Without accounting systemd switches controllers off that only the tests' containers use.
printf '[Manager]\nDefaultCPUAccounting=yes\nDefaultIOAccounting=yes\n' >"$root/etc/systemd/system.conf.d/accounting.conf"

# Sparse, and large enough for containerd's store. No journal: the VM's writes are thrown away.
truncate -s 6G "$work/root.img"
mke2fs -q -F -t ext4 -d "$root" -O '^has_journal,^metadata_csum' -E lazy_itable_init=1,nodiscard "$work/root.img"
mv "$work"/kernel/boot/vmlinuz-* "$output/vmlinuz"
mv "$work/root.img" "$output/root.img"
echo "built the VM's disk with $(basename "$work"/linux-image-*.deb)"

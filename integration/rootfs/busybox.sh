#!/bin/bash
# Builds a root file system tar from Debian's busybox-static: an ordinary small image without any init and without /run.
# usage: busybox.sh OUTPUT.tar
set -euo pipefail
output=$(realpath -m "$1")
scripts=$(dirname "$(realpath "$0")")/../../scripts

work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
mkdir -p "$(dirname "$output")" "$work/package" "$work/root"

# Downloaded, not installed: it conflicts with the busybox package, which this machine may need.
download() { (cd "$work" && apt-get download -q -o APT::Sandbox::User=root busybox-static); }
download || {
	echo "refreshing the package lists"
	apt-get update -q
	download
}
dpkg-deb --extract "$work"/busybox-static_*.deb "$work/package"

root=$work/root
mkdir -p "$root"/{bin,dev,etc,home/app,lib,proc,root,sys,tmp,usr/bin,usr/sbin,var/log,var/tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 0700 "$root/root"
chown 1000:1000 "$root/home/app"
install -m 0755 "$work/package/bin/busybox" "$root/bin/busybox"
while read -r applet; do
	# Nothing in this image may look like an init.
	case $applet in busybox | init | linuxrc | runsvdir | runsv) continue ;; esac
	ln "$root/bin/busybox" "$root/bin/$applet"
done < <("$root/bin/busybox" --list)

cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
PASSWD
cat >"$root/etc/group" <<'GROUP'
root:x:0:
daemon:x:1:
audio:x:29:app
app:x:1000:
nogroup:x:65534:
GROUP

"$scripts/tar-root.sh" "$root" "$output.part"
mv "$output.part" "$output"
echo "built $(basename "$output"): $(find "$root/bin" -type f | wc -l) hard links"

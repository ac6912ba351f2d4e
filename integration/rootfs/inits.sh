#!/bin/bash
# Builds a root file system tar from another one by giving it an init.
#   openrc   openrc-init in a Debian with OpenRC, and a getty as a service
#   alpine   busybox init in a Debian with OpenRC and busybox, as Alpine has it: six gettys, services by OpenRC
#   busybox  busybox init alone, without an inittab
# usage: inits.sh openrc|alpine|busybox BASE.tar OUTPUT.tar
set -euo pipefail
kind=$1
base=$2
output=$(realpath -m "$3")

work=$(mktemp -d)
trap 'rm -rf "$work" "$output.part"' EXIT
mkdir -p "$(dirname "$output")" "$work/root"
root=$work/root
chmod 0755 "$root"

# In Debian /sbin is a link, which must stay one.
applets() {
	local applet
	mkdir -p "$root/usr/sbin"
	for applet in "$@"; do ln -s /bin/busybox "$root/usr/sbin/$applet"; done
}
case $kind in
openrc)
	mkdir -p "$root/usr/sbin"
	ln -s openrc-init "$root/usr/sbin/init"
	# A getty as its users enable one.
	mkdir -p "$root/etc/init.d" "$root/etc/runlevels/default"
	ln -s agetty "$root/etc/init.d/agetty.tty1"
	ln -s /etc/init.d/agetty.tty1 "$root/etc/runlevels/default/agetty.tty1"
	;;
alpine)
	applets init poweroff halt reboot
	mkdir -p "$root/etc"
	cat >"$root/etc/inittab" <<'INITTAB'
# /etc/inittab

::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default

# Set up a couple of getty's
tty1::respawn:/sbin/getty 38400 tty1
tty2::respawn:/sbin/getty 38400 tty2
tty3::respawn:/sbin/getty 38400 tty3
tty4::respawn:/sbin/getty 38400 tty4
tty5::respawn:/sbin/getty 38400 tty5
tty6::respawn:/sbin/getty 38400 tty6

# Put a getty on the serial port
#ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100

# Stuff to do for the 3-finger salute
::ctrlaltdel:/sbin/reboot

# Stuff to do before rebooting
::shutdown:/sbin/openrc shutdown
INITTAB
	;;
busybox)
	mkdir -p "$root/sbin" "$root/etc/init.d"
	ln -s /bin/busybox "$root/sbin/init"
	printf '#!/bin/sh\necho "rcS ran" >/run/rcS.ran\n' >"$root/etc/init.d/rcS"
	chmod 0755 "$root/etc/init.d/rcS"
	;;
*)
	echo "inits.sh: unknown kind $kind" >&2
	exit 1
	;;
esac
cp "$base" "$output.part"
(cd "$root" && find . -mindepth 1 -print0 | sort -z |
	tar --append --file="$output.part" --no-recursion --null --files-from=- --mtime=@1735689600 --owner=0 --group=0 --numeric-owner)
mv "$output.part" "$output"
echo "built $(basename "$output")"

#!/bin/sh
# Runs in the installer's pod on each node: installs the runtime, stays, and removes all of it when the DaemonSet is deleted.
# /programs has the programs, /drop-in containerd's drop-in, /host/prefix and /host/conf.d are folders of the node.
#   RESTART   a command of the node that makes containerd read its configuration
set -eu

libexec=/host/prefix/libexec/containerd-shim-rich
drop_in=/host/conf.d/rich.toml

on_node() { nsenter --target 1 --mount -- sh -c "$1"; }

# By another name first: a program that runs cannot be written, and nobody may find half a file.
put() {
	cmp -s "$1" "$2" && return
	mkdir -p "${2%/*}"
	cp "$1" "$2.part"
	chmod "$3" "$2.part"
	mv "$2.part" "$2"
	echo "wrote $2"
}

remove() {
	# They are still needed: a shim that has died is cleaned up by its program.
	if pidof containerd-shim-rich-v2 >/dev/null; then
		echo "containers of this runtime still run on the node: nothing is removed; delete their pods and run the installer again" >&2
		exit 1
	fi
	rm -f "$drop_in" /host/prefix/bin/containerd-shim-rich-v2
	rm -rf "$libexec"
	on_node "$RESTART"
	echo "removed"
	exit 0
}
trap remove TERM

put /programs/rich-launch "$libexec/rich-launch" 0755
put /programs/dumb-init "$libexec/dumb-init" 0755
put /programs/containerd-shim-rich-v2 /host/prefix/bin/containerd-shim-rich-v2 0755
# The last, so that the handler is only there with all it needs.
if ! cmp -s /drop-in/rich.toml "$drop_in"; then
	put /drop-in/rich.toml "$drop_in" 0644
	on_node "$RESTART"
fi
touch /tmp/installed
echo "installed"

# In the background, since a shell takes no signal while it waits for a command in front.
while :; do
	sleep 3600 &
	wait "$!"
done

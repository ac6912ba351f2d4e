#!/bin/sh
# Runs in the installer's pod on each node, and stays: installs the runtime, or removes it. The pod is ready when that is done;
# what keeps it from being done is in the pod's log and status.
# /programs has the programs, /drop-in containerd's drop-in, /host/prefix and /host/conf.d are folders of the node.
#   CONTAINERD   the node's containerd
#   CONFIG       its configuration file
#   RESTART      a command of the node that makes it read that, and fails when it does not accept it
# usage: install.sh install|uninstall
set -eu

libexec=/host/prefix/libexec/containerd-shim-rich
drop_in=/host/conf.d/rich.toml
before=$drop_in.before    # the drop-in that is replaced, until containerd has accepted the new one
pending=$libexec/restart  # is there while containerd has not read the drop-in, also if this pod is interrupted

on_node() { nsenter --target 1 --mount -- sh -c "$1"; }

fail() {
	echo "$*" | tee /dev/termination-log >&2
	exit 1
}

# By another name first: a program that runs cannot be written, and nobody may find half a file. What is right already is not
# touched: a running shim tells by the times of its programs that they are still its own.
stage() {
	if ! cmp -s "$1" "$2" || [ "$(stat -c %a "$2")" != "${3#0}" ]; then
		mkdir -p "${2%/*}"
		cp "$1" "$2.part"
		chmod "$3" "$2.part"
	else
		rm -f "$2.part"
	fi
}
commit() {
	if [ -e "$1.part" ]; then
		mv "$1.part" "$1"
		echo "wrote $1"
	fi
}
put() {
	stage "$@"
	commit "$2"
}

# In the background, since a shell takes no signal while it waits for a command in front.
pause() {
	sleep "$1" &
	wait "$!"
}

check_containerd() {
	release=$(on_node "$CONTAINERD --version" | sed -n 's/^containerd [^ ]* v\{0,1\}\([0-9]*\.[0-9]*\).*/\1/p')
	case $release in
	'') fail "\"$CONTAINERD --version\" on the node does not tell a version: set CONTAINERD" ;;
	0.* | 1.*) fail "containerd $release: the drop-in needs 2.0 or newer" ;;
	2.0 | 2.1 | 2.2) ;;
	*) return 0 ;;
	esac
	# Beside a drop-in of version 3 these ignore what a file of an older version says about pods.
	text=$(on_node "cat '$CONFIG'" 2>/dev/null || true)
	version=$(echo "$text" | sed -n 's/^version *= *\([0-9]*\).*/\1/p')
	if [ -n "$text" ] && [ "${version:-1}" -lt 3 ]; then
		fail "$CONFIG has version ${version:-1}: containerd $release would ignore it beside the drop-in; bring it to version 3 with \"containerd config migrate\""
	fi
}

offered() { on_node "$CONTAINERD --config '$CONFIG' config dump" | grep -q 'runtimes\.rich\]'; }

# Back to what containerd has accepted before.
withdraw() {
	if [ -e "$before" ]; then
		cp "$before" "$drop_in"
	else
		rm -f "$drop_in"
	fi
}

install() {
	check_containerd
	# Running shims keep their programs. One that starts between these renames is the new one with the old programs: it takes
	# the new ones once the old launcher has turned out not to fit. An old shim could never get back its own.
	shim=/host/prefix/bin/containerd-shim-rich-v2
	stage /programs/containerd-shim-rich-v2 "$shim" 0755
	stage /programs/rich-launch "$libexec/rich-launch" 0755
	stage /programs/dumb-init "$libexec/dumb-init" 0755
	commit "$shim"
	commit "$libexec/rich-launch"
	commit "$libexec/dumb-init"
	# The last, so that the handler is only there with all it needs.
	if ! cmp -s /drop-in/rich.toml "$drop_in"; then
		# A file that containerd has never accepted is nothing to go back to.
		[ ! -e "$drop_in" ] || [ -e "$pending" ] || cp "$drop_in" "$before"
		touch "$pending"
	fi
	put /drop-in/rich.toml "$drop_in" 0644
	[ -e "$pending" ] || return 0
	if ! offered; then
		withdraw
		rm -f "$pending" "$before"
		fail "containerd would not read the drop-in: $CONFIG has to have /etc/containerd/conf.d/*.toml in its list imports"
	fi
	if ! on_node "$RESTART"; then
		withdraw
		on_node "$RESTART" || fail "containerd does not start, also without the drop-in: $RESTART"
		rm -f "$pending" "$before"
		fail "containerd does not start with the drop-in, which was taken back: $RESTART"
	fi
	rm -f "$pending" "$before"
}

# Programs are needed until the last container is gone: a shim that has died is cleaned up by its program.
await_idle() {
	told=
	while pidof containerd-shim-rich-v2 >/dev/null; do
		[ -n "$told" ] || echo "containers of this runtime run on the node: waiting until their pods are deleted"
		told=yes
		pause 5
	done
}

uninstall() {
	await_idle
	if [ -e "$drop_in" ]; then
		mkdir -p "$libexec"
		touch "$pending"
		rm -f "$drop_in"
	fi
	if [ -e "$pending" ]; then
		on_node "$RESTART" || fail "containerd does not start: $RESTART"
	fi
	await_idle # one may have come meanwhile
	rm -f "$before" /host/prefix/bin/containerd-shim-rich-v2
	rm -rf "$libexec"
}

trap 'exit 0' TERM
for tool in cmp nsenter pidof sed stat; do
	command -v "$tool" >/dev/null || fail "the installer's image has no $tool"
done
case ${1-} in
install) install ;;
uninstall) uninstall ;;
*) fail "usage: install.sh install|uninstall" ;;
esac
touch /tmp/done
echo "$1: done"
while :; do
	pause 3600
done

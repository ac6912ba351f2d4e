#!/bin/bash
# Inside namespaces.sh, as pid 1: makes a machine for the node and runs COMMAND. It stays, to reap what shims leave.
# usage: machine.sh COMMAND...
set -euo pipefail
: "${RUN:?}"

mkdir -p "$RUN"/var-log
mount --bind "$RUN/var-log" /var/log
# The installer writes to the one, the kubelet and the controller manager to the other.
for dir in local libexec; do
	mkdir -p "$RUN/usr-$dir"{,-work}
	mount -t overlay overlay -o "lowerdir=/usr/$dir,upperdir=$RUN/usr-$dir,workdir=$RUN/usr-$dir-work" "/usr/$dir"
done

# The kubelet insists on the address of a link, which lo is not; many kernels have no dummy links.
ip link add node0 type veth peer name node0-peer
ip link set node0-peer up
ip address add "$NODE_ADDRESS/24" dev node0
ip link set node0 up
ip route add default dev node0

rc=0
"$@" || rc=$?
exit "$rc"

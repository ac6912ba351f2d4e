#!/bin/bash
# Inside namespaces.sh, as pid 1: makes a machine for the node and runs COMMAND. It stays, to reap what shims leave.
# usage: machine.sh COMMAND...
set -euo pipefail
: "${RUN:?}"

mkdir -p "$RUN"/{var-log,usr-local,usr-local-work}
mount --bind "$RUN/var-log" /var/log
mount -t overlay overlay -o "lowerdir=/usr/local,upperdir=$RUN/usr-local,workdir=$RUN/usr-local-work" /usr/local

# The kubelet insists on the address of a link, which lo is not; many kernels have no dummy links.
ip link add node0 type veth peer name node0-peer
ip link set node0-peer up
ip address add "$NODE_ADDRESS/24" dev node0
ip link set node0 up
ip route add default dev node0

rc=0
"$@" || rc=$?
exit "$rc"

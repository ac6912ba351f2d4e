#!/bin/bash
# Boots the VM, runs the selected tests in it, and prints what they say. Fails when a test fails, when the VM ends without
# a result, and when it takes longer than TIMEOUT seconds. qemu emulates the processor, so that no KVM is needed.
# usage: run.sh FOLDER TIMEOUT TESTS
#   FOLDER  has vmlinuz, root.img and payload.img; console.log, test.log and containerd.log are written to it
#   TESTS   as for go test's -run
set -euo pipefail
folder=$(realpath "$1")
timeout=$2
tests=$3

console=$folder/console.log
log=$folder/test.log
truncate -s 0 "$console" "$log" "$folder/containerd.log"
truncate -s 16M "$folder/containerd.log"

disk() { printf '%s\n' -drive "file=$folder/$1,if=none,id=$2,format=raw,cache=unsafe,snapshot=$3" -device "nvme,drive=$2,serial=$2"; }
# What the VM writes to the first two goes to files of qemu's that have no name.
mapfile -t disks < <(disk root.img root on && disk payload.img payload on && disk containerd.log log off)
append=(
	console=ttyS0 loglevel=4 panic=-1 mitigations=off
	root=/dev/nvme0n1 rootfstype=ext4 rw
	systemd.unit=integration.service
	"integration.timeout=$timeout" "integration.run=$(base64 -w0 <<<"$tests")"
)

qemu='' follow=''
trap '[[ -z $qemu$follow ]] || kill $qemu $follow 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

started=$SECONDS
# The guest's own limit comes first, so that it can tell which test hangs. If this script is killed, qemu is as well.
TMPDIR=$folder setpriv --pdeathsig KILL timeout --kill-after=5 "$((timeout + 60))" setpriv --pdeathsig KILL \
	qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nodefaults -display none -nic none -no-reboot \
	-kernel "$folder/vmlinuz" -append "${append[*]}" "${disks[@]}" \
	-serial "file:$console" -serial "file:$log" </dev/null &
qemu=$!
tail --pid="$qemu" --lines=+1 --follow "$log" | grep --line-buffered -aEv '^=== (RUN|PAUSE|CONT|NAME) ' &
follow=$!
ended=0
wait "$qemu" || ended=$?
qemu=''
wait "$follow" || true
follow=''
sed -i 's/\x00*$//' "$folder/containerd.log"

status=$(sed -n 's/^vm: exit status //p' "$log" | tail -n1)
echo "the VM ran $((SECONDS - started)) s"
if [[ -z $status ]]; then
	if ((ended == 124)); then
		echo "run.sh: the VM was stopped after $((timeout + 60)) s" >&2
	else
		echo "run.sh: the VM ended without a result (qemu: $ended); the end of its console:" >&2
	fi
	tail -n 40 "$console" >&2
	exit 1
fi
if ((status == 0)) && ! grep -aq '^--- PASS: ' "$log"; then
	echo "run.sh: no test has the name $tests" >&2
	exit 1
fi
exit "$status"

#!/bin/bash
# The VM's only service: runs the tests of the payload. Their output goes to the host by the second serial port.
set -euo pipefail
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1

finish() {
	[[ ! -f /payload/build/integration-containerd.log ]] || tail -c 15M /payload/build/integration-containerd.log >/dev/nvme2n1
	echo "vm: exit status $1"
}
trap 'finish $?' EXIT

setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^integration.$1=//p"; }

# Switching cgroup2's options is allowed here, as nothing but the tests is on this machine.
export RICH_TEST_OWN_HOST=1 RICH_TEST_PATIENCE=10 TMPDIR=/var/tmp
busybox insmod /usr/local/lib/overlay.ko
ip link set lo up
mount /dev/nvme1n1 /payload
cd /payload/integration

echo "vm: Linux $(uname -r), $(systemctl --version | sed 's/ (.*//;q'), up in $(cut -d' ' -f1 /proc/uptime) s"
echo "vm: $(findmnt --noheadings --output FSTYPE,OPTIONS /sys/fs/cgroup), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
./integration.test -test.v -test.timeout "$(setting timeout)s" -test.run "$(setting run | base64 -d)"

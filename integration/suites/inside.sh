#!/bin/bash
# What namespaces.sh does inside, before COMMAND.
# usage: inside.sh COMMAND...
set -euo pipefail
: "${RUN:?}"

mount --make-rshared /
# Containers of others on this machine, whose mounts this namespace would hold: /run and /var/lib are replaced below.
while read -r point; do
	[[ $RUN/ != "$point"/* ]] || continue
	# A mount goes away by itself when its owner removes the folder below it.
	umount --lazy "$point" || ! mountpoint -q "$point"
done < <(awk '$2 ~ "^(/tmp|/run|/var/lib|/var/tmp)/" { print $2 }' /proc/self/mounts | sort -r)
while read -r top options; do
	umount "$top"
	if [[ $options == cgroup2 ]]; then
		mount -t cgroup2 cgroup2 "$top"
	else
		mount -t cgroup -o "$options" cgroup "$top"
	fi
done < <(awk '
	$3 == "cgroup2" { print $2, "cgroup2" }
	$3 == "cgroup" {
		n = split($4, option, ","); line = ""
		for (i = 1; i <= n; i++)
			if (option[i] !~ /^(rw|ro|nosuid|nodev|noexec|noatime|relatime|seclabel|release_agent=.*)$/)
				line = line (line == "" ? "" : ",") option[i]
		print $2, line
	}' /proc/self/mounts)
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$RUN/etc,workdir=$RUN/etc-work" /etc
mount --bind "$RUN/run" /run
mount --bind "$RUN/var-lib" /var/lib
ip link set lo up
exec "$@"

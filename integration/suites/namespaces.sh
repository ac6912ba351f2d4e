#!/bin/bash
# Runs COMMAND in its own mount, network, ipc, pid and cgroup namespaces, with RUN_FOLDER as its world: fixed paths, ports,
# firewall rules, shared memory and cgroups stay inside, and with the command the kernel ends every process it left.
# The command finds the folder in RUN, and RUN_FOLDER/etc over /etc.
# usage: namespaces.sh RUN_FOLDER COMMAND...
set -euo pipefail
run=$(realpath "$1")
shift
here=$(dirname "$(realpath "$0")")
if [[ $(stat --file-system --format=%T "$run") == overlayfs ]]; then
	echo "namespaces: $run is on overlayfs, which cannot carry another one" >&2
	exit 1
fi
mkdir -p "$run"/{run,var-lib,tmp,etc,etc-work}

# All cgroups of the run are below one folder of each hierarchy, which the cgroup namespace shows as the root.
parent=rich-test
name=$parent/suites-$$
mapfile -t hierarchies < <(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts)
enter_cgroups() {
	local top file
	for top in "${hierarchies[@]}"; do
		mkdir -p "$top/$name"
		# A new cpuset has no CPU and no memory, and takes no process before it does.
		for file in cpuset.cpus cpuset.mems; do
			[[ ! -e $top/$file ]] || cat "$top/$file" >"$top/$parent/$file"
			[[ ! -e $top/$file ]] || cat "$top/$file" >"$top/$name/$file"
		done
		[[ ! -e $top/cgroup.clone_children ]] || echo 1 >"$top/$name/cgroup.clone_children"
		echo "$BASHPID" >"$top/$name/cgroup.procs"
	done
}
# shellcheck disable=SC2317 # the trap calls it
remove_cgroups() {
	local top tries left
	for ((tries = 0; tries < 100; tries++)); do
		left=0
		for top in "${hierarchies[@]}"; do
			[[ ! -d $top/$name ]] || find "$top/$name" -depth -type d -exec rmdir {} + 2>/dev/null || true
			[[ ! -d $top/$name ]] || left=1
			# Stays while another run is in it.
			rmdir "$top/$parent" 2>/dev/null || true
		done
		((left)) || return 0
		sleep 0.1
	done
	echo "namespaces: cgroups stay in $name" >&2
}
trap remove_cgroups EXIT

export RUN=$run TMPDIR=$run/tmp

rc=0
(
	enter_cgroups
	exec unshare --mount --net --ipc --pid --cgroup --fork --kill-child --mount-proc --propagation private -- \
		"$here/inside.sh" "$@"
) || rc=$?
exit "$rc"

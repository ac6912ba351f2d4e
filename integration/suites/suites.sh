#!/bin/bash
# Runs test suites that others wrote on containerd's stock shim and on ours, and compares the results: fails when a test
# passes with the stock shim and not with ours. docs/suites.md says what is run and what is left out.
#
# Environment:
#   RUNS   which runs, of: critest-stock critest-none critest-dumb-init client-stock client-none client-dumb-init
#   FORCE  1 runs the stock shim again, whose results are otherwise kept while nothing they depend on changes
#   OURS   the folder of our programs, build/bin if unset
#   FOCUS  a regular expression of tests, for work on a few of them; these results are not kept
# usage: suites.sh BUILD_FOLDER
set -euo pipefail
build=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
suites=$build/suites ours=${OURS:-$build/bin}
RUNS=${RUNS:-critest-stock client-stock critest-none critest-dumb-init client-none}

if ((EUID != 0)); then
	echo "suites: root is needed" >&2
	exit 1
fi
# lsof: without it a test would compare nothing with nothing.
"$here/../../scripts/need-packages.sh" containernetworking-plugins iproute2 iptables lsof mount procps util-linux

# What needs another image than we can make, and what no shim has a part in.
critest_skip='public image with digest'
client_skip='TestImage|TestExport|TestPullFetch|TestContent|TestConvert|TestLease|TestMigration|TestSnapshotter|TestTransfer|TestImport|^Fuzz|TestClientTTRPC'

# key RUN: changes when the results of a run with the stock shim may.
key() {
	{
		echo "$1 $(uname -r) $critest_skip $client_skip"
		cat "$here"/{namespaces,inside,critest,client,registry}.sh
		(cd "$suites" && find images programs -type f -print0 | sort -z | xargs -0 sha256sum)
		sha256sum <"$build/tools/containerd"
	} | sha256sum
}

one_run() {
	local name=$1 suite=${1%%-*} shim=${1#*-} started=$SECONDS rc=0
	local results=$suites/results/$name run=$suites/runs/$name arguments=()
	if [[ $shim == stock && -z ${FOCUS:-} && ${FORCE:-} != 1 ]] && cmp -s "$results/key" <(key "$name"); then
		echo "$name: results of an earlier run are still good"
		return
	fi
	rm -rf "$run" "$results"
	mkdir -p "$run/bin" "$run/etc/containerd" "$results"
	# Copies, so that a build meanwhile does not mix two versions.
	cp "$suites"/programs/{containerd-shim-runc-v2,runc,runc-fp,registry} "$build"/tools/{containerd,ctr} "$run/bin/"
	export TYPE=io.containerd.runc.v2
	if [[ $shim != stock ]]; then
		cp "$ours"/{containerd-shim-rich-v2,rich-launch,dumb-init} "$run/bin/"
		TYPE=io.containerd.rich.v2
		# Not in the handler's table of options: with one, containerd 2.4.2 cannot start a container in a user namespace
		# on any runtime but its own.
		echo "init = \"$shim\"" >"$run/etc/containerd/rich.toml"
	fi
	case $suite in
	critest)
		cp "$suites/programs/critest" "$run/bin/"
		arguments=(--ginkgo.seed=1 --ginkgo.skip "$critest_skip")
		[[ -z ${FOCUS:-} ]] || arguments+=(--ginkgo.focus "$FOCUS")
		;;
	client)
		cp "$suites/programs/client.test" "$run/bin/"
		arguments=(-test.timeout 15m -test.skip "$client_skip")
		[[ -z ${FOCUS:-} ]] || arguments+=(-test.run "$FOCUS")
		;;
	esac
	echo "$name: running"
	PATH=$run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		IMAGES=$suites/images PROGRAMS=$suites/programs \
		timeout --kill-after=30 25m "$here/namespaces.sh" "$run" "$here/$suite.sh" "${arguments[@]}" || rc=$?
	cp "$run"/{*.log,*.xml,left,containerd.toml} "$results/" 2>/dev/null || true
	rm -rf "$run"
	if [[ ! -e $results/$suite.log ]]; then
		echo "$name: did not run (exit status $rc)" >&2
		return 1
	fi
	if [[ -s $results/left ]]; then
		echo "$name: left behind:"
		sed 's/^/  /' "$results/left"
	fi
	# Only a run that was not cut short is worth keeping.
	if [[ $shim == stock && -z ${FOCUS:-} ]] && ((rc <= 1)); then
		key "$name" >"$results/key"
	fi
	echo "$name: took $((SECONDS - started)) s, exit status $rc"
}

mkdir -p "$suites/results"
for name in $RUNS; do
	one_run "$name"
done

comparisons=()
for name in $RUNS; do
	suite=${name%%-*} shim=${name#*-}
	# The last is a try, for those who work on the init.
	[[ $shim != stock && $name != client-dumb-init && -d $suites/results/$suite-stock ]] || continue
	file=$suite.log
	[[ $suite != critest ]] || file=critest.xml
	comparisons+=("$suite/init $shim=$suites/results/$suite-stock/$file,$suites/results/$name/$file")
done
((${#comparisons[@]})) || exit 0
"$suites/compare" -first runc.v2 -second rich.v2 -exceptions "$here/exceptions.txt" "${comparisons[@]}" | tee "$suites/results/table.txt"

#!/bin/bash
# Inside namespaces.sh, when a suite is over: lists the shims and containers it left running, and the mounts that contain
# one of the WORDS, in RUN/left.
# usage: leftovers.sh WORDS...
set -euo pipefail
: "${RUN:?}"
{
	# Without the scripts themselves, the registry and this pipe, of which a part may not have its arguments yet.
	ps -A -o pid=,ppid=,args= --sort pid | awk '$3 !~ /(^|\/|\[)(bash|registry|ps|awk)\]?$/ { print "process", $0 }'
	for word in "$@"; do
		cut -d' ' -f5 /proc/self/mountinfo | grep -F "$word" | sed 's/^/mount /' || true
	done
} >"$RUN/left"

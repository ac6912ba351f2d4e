#!/bin/bash
# Rules for the tree itself: no path of a build machine in any file, no folder with a name that says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
files() { git ls-files -z --cached --others --exclude-standard; }

# Written in pieces, so that this file does not match itself.
machine_paths="(^|[^[:alnum:]_.-])/(wor""k|home/[a-z]+|Users)/[[:alnum:]_.-]+"
if files | xargs -0 -r grep -nIE -e "$machine_paths" -- 2>/dev/null | grep -v '/home/app'; then
	echo "check-tree: the lines above name a path of a machine" >&2
	failed=1
fi
if files | tr '\0' '\n' | grep -E '(^|/)(util|utils|common|helper|helpers)/'; then
	echo "check-tree: name the folders above after what they hold" >&2
	failed=1
fi
exit "$failed"

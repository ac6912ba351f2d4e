#!/bin/bash
# Says clearly when Go is missing or too old for this module.
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(awk '$1 == "go" { print $2 }' go.mod)
if ! command -v go >/dev/null; then
	echo "need-go: no go in PATH; Go $want or newer is needed (https://go.dev/dl/)" >&2
	exit 1
fi
# With GOTOOLCHAIN=auto an older go may fetch the right one, so ask which would really be used.
if ! have=$(go env GOVERSION 2>&1) || ! [[ $have =~ ^go[0-9]+\.[0-9]+ ]]; then
	echo "need-go: Go $want or newer is needed: $have" >&2
	exit 1
fi
have=${have#go}
if [[ $(printf '%s\n' "$want" "${have%%[- ]*}" | sort -V | head -n1) != "$want" ]]; then
	echo "need-go: Go $want or newer is needed, found $have" >&2
	exit 1
fi

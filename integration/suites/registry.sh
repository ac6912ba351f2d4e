#!/bin/bash
# Inside namespaces.sh: starts the registry and returns when it serves. It ends with the namespaces.
set -euo pipefail
: "${RUN:?}" "${IMAGES:?}"
registry -images "$IMAGES/images.json" -ca "$RUN/registry-ca.pem" >"$RUN/registry.log" 2>&1 &
for ((tries = 0; ; tries++)); do
	! grep -qx ready "$RUN/registry.log" || break
	if ((tries == 300)) || ! kill -0 "$!" 2>/dev/null; then
		echo "registry: does not serve:" >&2
		tail -n 20 "$RUN/registry.log" >&2
		exit 1
	fi
	sleep 0.1
done

#!/bin/bash
# Inside namespaces.sh: a registry and containerd's client suite, which starts its own containerd, with TYPE as the runtime.
# Writes client.log into RUN.
# usage: client.sh TEST_ARGUMENTS...
set -euo pipefail
: "${RUN:?}" "${TYPE:?}" "${PROGRAMS:?}"
here=$(dirname "$(realpath "$0")")

"$here/registry.sh"
# The suite pulls with the library's default resolver; its daemon inherits the same.
export HTTPS_PROXY=http://127.0.0.1:5001 SSL_CERT_FILE=$RUN/registry-ca.pem NO_PROXY=127.0.0.1
export TEST_RUNTIME=$TYPE
rc=0
mkdir -p "$RUN/client"
cp -r "$PROGRAMS/testdata" "$RUN/client/"
cd "$RUN/client"
# Without -test.root it skips everything, and succeeds.
client.test -test.v=test2json -test.root -no-criu "$@" >"$RUN/client.log" 2>&1 || rc=$?
"$here/leftovers.sh" containerd "$RUN/"
exit "$rc"

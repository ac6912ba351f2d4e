#!/bin/bash
# Packs a root folder into a tar whose bytes depend on the content only.
# usage: tar-root.sh FOLDER OUTPUT.tar
set -euo pipefail
tar --create --file="$2" --directory="$1" --sort=name --mtime=@1735689600 --numeric-owner --format=gnu .

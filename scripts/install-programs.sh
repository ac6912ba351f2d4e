#!/bin/bash
# Installs the programs so that containers may run meanwhile: whole files, by renames, the shim first. A shim that starts between
# the renames takes the new launcher once the old one has turned out not to fit it.
# usage: install-programs.sh FROM BINDIR LIBEXECDIR
set -euo pipefail

from=$1 bindir=$2 libexecdir=$3

targets=("$bindir/containerd-shim-rich-v2" "$libexecdir/rich-launch" "$libexecdir/dumb-init")
for target in "${targets[@]}"; do
	install -m 0755 "$from/${target##*/}" "$target.part"
done
for target in "${targets[@]}"; do
	mv -f "$target.part" "$target"
done

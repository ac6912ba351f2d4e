#!/bin/bash
# Installs the named Debian packages that are missing; does nothing, and needs no network, when all are there.
set -euo pipefail

# Parallel make jobs wait here instead of failing on apt's lock.
exec {lock}<"$0"
flock "$lock"

missing=()
for package in "$@"; do
	status=$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null || true)
	grep -qx installed <<<"$status" || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
	echo "need-packages: run as root, or install first: ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"

#!/bin/bash
# Prints the URI of the Debian mirror this machine's apt uses; DEBIAN_MIRROR overrides it.
set -euo pipefail

if [[ -n ${DEBIAN_MIRROR:-} ]]; then
	echo "$DEBIAN_MIRROR"
	exit
fi
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${ID:-}:${VERSION_CODENAME:-}")
if [[ $codename != debian:* ]]; then
	echo "debian-mirror: this is not Debian; set DEBIAN_MIRROR to a mirror's URI" >&2
	exit 1
fi
# --no-release-info: an image whose package lists were removed has no release info to join.
# shellcheck disable=SC2016 # the variables are apt's
mirror=$(apt-get --no-release-info indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk -v release="${codename#debian:}" '$2 == release && $3 == "main" && !found { print $1; found = 1 }')
if [[ -z $mirror ]]; then
	echo "debian-mirror: apt has no source for ${codename#debian:} main; set DEBIAN_MIRROR to a mirror's URI" >&2
	exit 1
fi
echo "$mirror"

#!/bin/bash
# Runs each fuzz target of the module for a time. New findings land in the package's testdata, to be kept as seeds.
# usage: fuzz.sh TIME
set -euo pipefail
cd "$(dirname "$0")/.."
duration=$1
tags='netgo osusergo seccomp runc_nocriu'

found=0
while read -r package; do
	# Of a package without tests, go test -list prints no target.
	targets=$(go test -tags "$tags" -list '^Fuzz' "$package" | grep '^Fuzz' || true)
	for target in $targets; do
		found=$((found + 1))
		echo "fuzz: $target in $package for $duration"
		go test -tags "$tags" -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$package"
	done
done < <(go list -tags "$tags" ./... | grep -v /integration)
echo "fuzz: $found targets"

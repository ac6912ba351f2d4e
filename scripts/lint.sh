#!/bin/bash
# All checks of the sources. Runs every one, and fails if any of them did.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need-packages.sh shellcheck

failed=()
step() {
	local name=$1 started=$SECONDS
	shift
	echo "lint: $name"
	"$@" || failed+=("$name")
	echo "lint: $name took $((SECONDS - started)) s"
}

# Files that git tracks or would track, so that a new file is checked before it is committed.
files() {
	local file
	while IFS= read -r -d '' file; do
		[[ ! -f $file ]] || printf '%s\0' "$file"
	done < <(git ls-files -z --cached --others --exclude-standard -- "$@")
}
check_shell() { files '*.sh' '.ci/*' | xargs -0 -r shellcheck --external-sources; }
check_format() {
	local unformatted
	unformatted=$(files '*.go' | xargs -0 -r gofmt -l)
	[[ -z $unformatted ]] || { printf 'not formatted by gofmt:\n%s\n' "$unformatted"; return 1; }
}
# The module of this repository is left out where it is another one's: a folder is in its place, which has no checksum.
verify_modules() {
	local dir rc=0
	dir=$(mktemp -d)
	go mod edit -print -droprequire=containerd-shim-rich -dropreplace=containerd-shim-rich >"$dir/go.mod"
	[[ ! -e go.sum ]] || cp go.sum "$dir/"
	go mod verify -modfile="$dir/go.mod" || rc=$?
	rm -r "$dir"
	return "$rc"
}
# The modules that only name tools are left out: tidying them would download the tests of all their dependencies.
check_modules() {
	local ok=0 module
	while IFS= read -r -d '' module; do
		! grep -q '^tool' "$module" || continue
		(cd "$(dirname "$module")" && verify_modules && go mod tidy -diff) || {
			echo "in $module"
			ok=1
		}
	done < <(files 'go.mod' '*/go.mod')
	return "$ok"
}
check_mkimage() { (cd integration/tools/mkimage && go vet ./...); }

# Built as make test-kubernetes does, so that Kubernetes' client is compiled once.
check_kubernetes() { (cd integration/kubernetes && CGO_ENABLED=0 go vet -trimpath ./...); }

step "tree" scripts/check-tree.sh
step "shellcheck" check_shell
step "gofmt" check_format
step "modules" check_modules
step "go vet of mkimage" check_mkimage
step "go vet of the Kubernetes tests" check_kubernetes
step "golangci-lint" build/tools/golangci-lint run ./...

if ((${#failed[@]})); then
	printf 'lint: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi

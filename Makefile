SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PREFIX ?= /usr/local
DESTDIR ?=
bindir := $(DESTDIR)$(PREFIX)/bin
libexecdir := $(DESTDIR)$(PREFIX)/libexec/containerd-shim-rich
docdir := $(DESTDIR)$(PREFIX)/share/doc/containerd-shim-rich

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# How long "make fuzz" gives each fuzz target, and the limit of one integration run.
FUZZTIME ?= 10s
TEST_TIMEOUT ?= 50m
# More flags for go test, e.g. make integration TESTFLAGS='-run TestRunBusybox -v'
TESTFLAGS ?=
# What "make test-vm" runs: all, short, or as for go test's -run. And for how many seconds at most.
VM_TESTS ?= all
VM_TIMEOUT ?= 3600

# runc_nocriu: this shim offers no checkpoints.
shim_tags := netgo osusergo no_grpc seccomp runc_nocriu
shim_ldflags := -s -w -extldflags "-static" -X containerd-shim-rich/shim.Version=$(VERSION)
launch_ldflags := -s -w -X main.version=$(VERSION)
containerd_tags := no_btrfs no_devmapper no_zfs
# The older ones run containers without CRI. Their module files list what a build with these tags needs, and no more:
# go list -mod=mod -tags "..." -deps tool, after a change of the version.
older_tags := $(containerd_tags) no_aufs no_cri no_systemd no_tracing
tool_ldflags := -s -w

bin := build/bin
tools := build/tools
rootfs := build/rootfs
images := build/images
suites := build/suites
kubernetes := build/kubernetes
vm := build/vm
# Each release line of containerd before the newest; 1.6 is Debian's.
older := $(foreach line,1.6 1.7 2.0 2.1 2.2 2.3,$(tools)/containerd-$(line)/containerd)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

##@ the product

.PHONY: build
build: $(bin)/dumb-init go-build ## build the shim, the launcher and dumb-init into build/bin

.PHONY: prerequisites
prerequisites:
	@scripts/need-go.sh
	@scripts/need-packages.sh gcc libc6-dev libseccomp-dev pkg-config git ca-certificates

# Go tracks its own inputs, so this always asks it.
.PHONY: go-build
go-build: prerequisites
	@mkdir -p $(bin)
	@echo "building the shim ($(VERSION)) and the launcher"
	@CGO_ENABLED=1 go build -trimpath -tags '$(shim_tags)' -ldflags '$(shim_ldflags)' \
		-o $(bin)/containerd-shim-rich-v2 ./cmd/containerd-shim-rich-v2
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(launch_ldflags)' -o $(bin)/rich-launch ./cmd/rich-launch

$(bin)/dumb-init: scripts/build-dumb-init.sh
	@scripts/build-dumb-init.sh $@ build/doc/dumb-init.LICENSE

.PHONY: install
install: build ## install below DESTDIR and PREFIX (/usr/local)
	install -d $(bindir) $(libexecdir) $(docdir)
	scripts/install-programs.sh $(bin) $(bindir) $(libexecdir)
	install -m 0644 build/doc/dumb-init.LICENSE $(docdir)/

.PHONY: uninstall
uninstall: ## remove what install put there
	rm -f $(bindir)/containerd-shim-rich-v2
	rm -rf $(libexecdir) $(docdir)

##@ checks

.PHONY: lint
lint: $(tools)/golangci-lint prerequisites ## linters, formatting, scripts, module files, tree rules
	@scripts/lint.sh

.PHONY: unit
unit: prerequisites ## unit tests, with the race detector
	@echo "unit tests"
	@CGO_ENABLED=1 go test -race -tags '$(shim_tags)' $(TESTFLAGS) $$(go list ./... | grep -v '/integration')

# Its containers wait more than they compute.
.PHONY: integration
integration: integration-files integration-programs ## tests against a private containerd with real root file systems (root only)
	@echo "integration tests"
	@go test -count=1 -timeout $(TEST_TIMEOUT) -parallel "$$((2 * $$(nproc)))" $(TESTFLAGS) ./integration

.PHONY: integration-programs
integration-programs:
	@scripts/need-packages.sh openssh-client hostname

.PHONY: test
test: ## unit tests, then integration tests
	@if ((EUID != 0)); then echo "make test: the integration tests need root" >&2; exit 1; fi
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory integration

# Of these make test tries each attack once.
.PHONY: test-hostile
test-hostile: integration-files integration-programs ## every attack of a hostile container on every init by every user, about 15 minutes (root only)
	@echo "attacks of a hostile container"
	@RICH_TEST_HOSTILE=all go test -v -count=1 -timeout $(TEST_TIMEOUT) -parallel "$$((2 * $$(nproc)))" -run TestHostileContainer $(TESTFLAGS) ./integration \
		| grep --line-buffered -aEv '^=== (RUN|PAUSE|CONT|NAME) '

# Which tests concern cgroups.
vm_tests_all := ^TestCgroup|^TestT3|^TestT4|TestB13Cgroup|TestB14Exec|TestOOMBeforeExit|TestResources|TestPauseAndResume|TestPidsAndKillAll|TestShimKilled(InCreate)?$$|TestExecInCreated$$|TestKillAllHostPIDs$$
vm_tests_all := $(vm_tests_all)|TestInitMatrix/init/(systemd|dumb-init)/(exit_42|user_namespace|TERM_with|poweroff$$)
vm_tests_short := TestCgroup(Limits|Pids)/(none|systemd-252)|TestCgroup(SystemdDriver|UnitLimit)/systemd-252

.PHONY: test-vm
test-vm: integration-files $(vm)/root.img ## integration tests about cgroups, on cgroup v2 in an emulated machine (root only; VM_TESTS, VM_TIMEOUT)
	@scripts/need-packages.sh qemu-system-x86 e2fsprogs util-linux
	@echo "building the tests for the VM"
	@CGO_ENABLED=0 go test -c -o $(vm)/integration.test ./integration
	@integration/vm/payload.sh build $(vm)
	@integration/vm/run.sh $(vm) $(VM_TIMEOUT) '$(or $(vm_tests_$(VM_TESTS)),$(VM_TESTS))'

$(vm)/root.img: $(rootfs)/debian-bookworm.tar $(addprefix integration/vm/,disk.sh guest.sh integration.service)
	@integration/vm/disk.sh $< $(@D)

.PHONY: fuzz
fuzz: prerequisites ## run each fuzz target for FUZZTIME (10s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: suites
suites: build $(tools)/containerd $(suites)/programs/critest $(suites)/programs/registry $(suites)/images/images.json ## critest and containerd's client tests, on the stock shim and on ours (root only; RUNS, FORCE, FOCUS, OURS)
	@CGO_ENABLED=0 go build -o $(suites)/compare ./integration/suites/compare
	@integration/suites/suites.sh build

$(suites)/programs/critest: integration/suites/programs.sh
	@scripts/need-go.sh
	@integration/suites/programs.sh $(suites)/programs

$(suites)/programs/registry: $(wildcard integration/tools/registry/*)
	@scripts/need-go.sh
	@scripts/build-tool.sh integration/tools/registry $(suites)/programs .

$(suites)/busybox: integration/suites/busybox.sh
	@integration/suites/busybox.sh $@

$(suites)/images/images.json: $(suites)/busybox $(addprefix integration/suites/,images.sh images.json pause.c nonewprivs.c)
	@integration/suites/images.sh $< $(@D)

# A module of its own, so that this one does not depend on Kubernetes.
.PHONY: test-kubernetes
test-kubernetes: build $(bin)/probe $(tools)/containerd $(kubernetes)/programs/kubelet $(suites)/programs/critest kubernetes-images ## a real kubelet runs rich pods by RuntimeClass (root only)
	@scripts/need-packages.sh containernetworking-plugins iproute2 iptables mount procps util-linux
	@cd integration/kubernetes && CGO_ENABLED=0 go test -v -trimpath -count=1 -timeout $(TEST_TIMEOUT) $(TESTFLAGS) . \
		| grep --line-buffered -aEv '^=== (RUN|PAUSE|CONT|NAME) '

$(kubernetes)/programs/kubelet: integration/kubernetes/programs.sh integration/tools/kubernetes/go.mod integration/tools/kubernetes/go.sum
	@scripts/need-go.sh
	@integration/kubernetes/programs.sh $(kubernetes)/programs

.PHONY: kubernetes-images
kubernetes-images: $(addprefix $(images)/,pause.tar busybox.tar debian-bookworm.tar rich-installer.tar)

.PHONY: bench
bench: build $(tools)/containerd $(suites)/programs/critest build/bench/crun/usr/bin/crun $(addprefix $(images)/,busybox.tar debian-bookworm.tar) ## measure the shim beside its peers into build/bench.json and docs/performance.md (root only, about 10 minutes; ROUNDS, FOCUS)
	@scripts/need-packages.sh systemd-container podman
	@CGO_ENABLED=0 go build -o build/bench/bench ./integration/bench
	@build/bench/bench $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(FOCUS),-focus '$(FOCUS)') $(if $(ROUNDS)$(FOCUS),,-docs docs/performance.md)

build/bench/crun/usr/bin/crun: integration/bench/crun.sh
	@integration/bench/crun.sh build/bench/crun

##@ what the integration tests and the demo run on

.PHONY: integration-files
integration-files: build $(bin)/probe $(bin)/hostile $(bin)/busybox $(tools)/containerd $(older) images build/components ## everything the integration tests need, without running them

.PHONY: images
images: $(addprefix $(images)/,busybox.tar scratch.tar debian-bookworm.tar debian-trixie.tar debian-sid.tar \
	init-busybox.tar init-alpine.tar init-openrc.tar debian-bookworm-sysvinit.tar debian-bookworm-runit.tar)

# One go build makes both; the recipe runs once for the pair.
$(tools)/containerd $(tools)/ctr &: integration/tools/containerd/go.mod integration/tools/containerd/go.sum
	@scripts/need-go.sh
	@scripts/need-packages.sh gcc libc6-dev ca-certificates
	@scripts/build-tool.sh integration/tools/containerd $(tools) -tags '$(containerd_tags)' -ldflags '$(tool_ldflags)' tool

$(tools)/containerd-1.6/containerd: integration/tools/containerd-1.6.sh
	@$< $@

$(tools)/containerd-%/containerd: integration/tools/containerd-%/go.mod integration/tools/containerd-%/go.sum
	@scripts/need-go.sh
	@scripts/need-packages.sh gcc libc6-dev ca-certificates
	@scripts/build-tool.sh $(<D) $(@D) -tags '$(older_tags)' -ldflags '$(tool_ldflags)' tool

$(tools)/golangci-lint: integration/tools/golangci-lint/go.mod integration/tools/golangci-lint/go.sum
	@scripts/need-go.sh
	@scripts/need-packages.sh gcc libc6-dev ca-certificates
	@scripts/build-tool.sh integration/tools/golangci-lint $(tools) tool

$(tools)/mkimage: $(wildcard integration/tools/mkimage/*)
	@scripts/need-go.sh
	@scripts/build-tool.sh integration/tools/mkimage $(tools) .

$(bin)/probe: integration/probe/probe.c
	@scripts/need-packages.sh gcc libc6-dev
	@mkdir -p $(bin)
	@gcc -std=gnu11 -static -s -O2 -Wall -Wextra -Werror -o $@.part $< && mv $@.part $@

$(bin)/hostile: $(wildcard integration/hostile/*.[ch])
	@scripts/need-packages.sh gcc libc6-dev
	@mkdir -p $(bin)
	@gcc -std=gnu11 -static -s -O2 -Wall -Wextra -Werror -o $@.part $(filter %.c,$^) && mv $@.part $@

# What components of the tests run; most of the tar's files are links to it.
$(bin)/busybox: $(rootfs)/busybox.tar
	@mkdir -p $(bin)/busybox.part && tar -xf $< -C $(bin)/busybox.part ./bin
	@mv $(bin)/busybox.part/bin/busybox $@ && rm -r $(bin)/busybox.part && touch $@

$(rootfs)/debian-%.tar: integration/rootfs/debian.sh integration/rootfs/debian-%.packages
	@integration/rootfs/debian.sh $* $@

$(rootfs)/busybox.tar: integration/rootfs/busybox.sh scripts/tar-root.sh
	@integration/rootfs/busybox.sh $@

$(rootfs)/init-busybox.tar: $(rootfs)/busybox.tar integration/rootfs/inits.sh
	@integration/rootfs/inits.sh busybox $< $@

$(rootfs)/init-alpine.tar $(rootfs)/init-openrc.tar: $(rootfs)/init-%.tar: $(rootfs)/debian-bookworm-openrc.tar integration/rootfs/inits.sh
	@integration/rootfs/inits.sh $* $< $@

$(rootfs)/pause.tar: integration/suites/pause.c integration/rootfs/pause.sh scripts/tar-root.sh
	@integration/rootfs/pause.sh $< $@

$(rootfs)/rich-installer.tar: $(rootfs)/busybox.tar integration/rootfs/installer.sh go-build $(bin)/dumb-init
	@integration/rootfs/installer.sh $< $(bin) $@

$(rootfs)/scratch.tar: integration/rootfs/scratch.sh integration/rootfs/hello.c scripts/tar-root.sh
	@integration/rootfs/scratch.sh $@

build/components: integration/rootfs/components.sh
	@integration/rootfs/components.sh $@

path := PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
config_busybox := -cmd sh -env $(path)
config_scratch := -entrypoint /hello
config_pause := -entrypoint /pause
config_debian-bookworm := -cmd bash -env $(path)
config_debian-trixie := -cmd bash -env $(path)
config_debian-sid := -cmd bash -env $(path)
config_debian-bookworm-sysvinit := -cmd bash -env $(path)
config_debian-bookworm-runit := -cmd bash -env $(path)
config_init-busybox := -cmd sh -env $(path)
config_init-alpine := -cmd sh -env $(path)
config_init-openrc := -cmd bash -env $(path)

# Root file systems are kept: an image is quickly made again from them.
.SECONDARY:
$(images)/%.tar: $(rootfs)/%.tar $(tools)/mkimage
	@mkdir -p $(images)
	@echo "making the image localhost/$*:latest"
	@$(tools)/mkimage -rootfs $< -output $@ -name localhost/$*:latest $(config_$*)

.PHONY: demo
demo: ## run a Debian image with systemd on a private containerd, and show it (root only)
	@integration/demo/demo.sh

.PHONY: clean
clean: ## remove build/, with all that was downloaded and built
	rm -rf build

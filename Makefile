# The front door. `make help` lists what there is.
#
# Everything downloaded or built that is not part of the tree lives in INVIVO_CACHE and is made
# again where it is missing: kernel packages, Go tools, guest image, cargo's target folder.

INVIVO_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/invivo
export INVIVO_CACHE
export CARGO_TARGET_DIR ?= $(INVIVO_CACHE)/target
BIN := $(CARGO_TARGET_DIR)/x86_64-unknown-linux-gnu/debug
RELEASE := $(CARGO_TARGET_DIR)/x86_64-unknown-linux-gnu/release
LAB := $(BIN)/invivo-lab
SHELL := /bin/bash

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: host-packages own-target ## Every program, static, into the cargo target folder
	cargo build --workspace --locked

# Checkouts share the target folder, and cargo goes by the age of files alone: what another checkout
# built since would pass for this one's.
.PHONY: own-target
own-target:
	@mkdir -p $(CARGO_TARGET_DIR)
	@[ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" = "$(CURDIR)" ] \
	  || { find . -name '*.rs' -not -path './target/*' -exec touch {} + && echo "$(CURDIR)" > $(CARGO_TARGET_DIR)/checkout; }

.PHONY: host-packages
host-packages: # A C compiler is all that cargo itself needs; the lab installs the rest
	@command -v gcc >/dev/null || (apt-get update -q && apt-get install -y -q gcc libc6-dev)
	@command -v gcc-12 >/dev/null && command -v make >/dev/null && [ -e /usr/lib/x86_64-linux-gnu/libelf.so.1 ] \
	  && command -v openssl >/dev/null && command -v xz >/dev/null \
	  && command -v pahole >/dev/null \
	  || (apt-get update -q && apt-get install -y -q gcc-12 libc6-dev make libelf1 lz4 pahole xz-utils openssl)
	@command -v mke2fs >/dev/null && command -v openssl >/dev/null \
	  || (apt-get update -q && apt-get install -y -q e2fsprogs openssl)

.PHONY: demo
demo: build ## The whole way: lab, patch, repository, charts, canary, rest, roll back, again
	$(LAB) demo

.PHONY: demo-clean
demo-clean: ## End the lab; leaves no process and no network namespace
	@for lab in $(LAB) $(RELEASE)/invivo-lab; do [ ! -x $$lab ] || exec $$lab down; done; echo "no lab was built"

.PHONY: test
test: test-fast ## Every test: units, real API server, simulated fleets, the lab's scenarios
	$(SIMULATED)
	$(LAB) test

# The loader of an earlier version: this one takes over its state, and the other way round.
EARLIER ?= 9415d8c
OTHER_LOADER = $(INVIVO_CACHE)/earlier/$(EARLIER)/invivo-loader
$(OTHER_LOADER): EARLIER_TREE = $(@D)/tree
$(OTHER_LOADER):
	rm -rf $(EARLIER_TREE) && mkdir -p $(EARLIER_TREE) && git archive $(EARLIER) | tar -x -C $(EARLIER_TREE)
	cd $(EARLIER_TREE) && CARGO_TARGET_DIR=$(@D)/target cargo build --locked -p invivo-loader
	cp $(@D)/target/x86_64-unknown-linux-gnu/debug/invivo-loader $@ && rm -rf $(@D)/target $(EARLIER_TREE)

.PHONY: test-all
test-all: test-fast $(OTHER_LOADER) ## The same, and what takes longer
	INVIVO_ALL=1 INVIVO_POWER_CUTS=0 INVIVO_OTHER_LOADER=$(OTHER_LOADER) $(GUEST_TEST)
	INVIVO_ALL=1 cargo test --workspace --locked --test targets --test build -- --nocapture
	$(SIMULATED)
	$(LAB) test --all

# Simulated nodes, the real operator and API server: each field of a policy and a feed on a few, and
# four stages of 500 with a gate that fails in the third.
SIMULATED = $(LAB) fleet --trials && $(LAB) fleet --large 0 --rest 0

.PHONY: test-fast
test-fast: build ## The tests that need no lab; kinds and policies are tried on a real API server
	set -o pipefail; tools=$$($(LAB) tools | tee >(cat >&2) | tail -n 1) && \
	  INVIVO_TOOLS="$$tools" cargo test --workspace --locked

# The loader alone in a guest; what takes minutes there is not tried by plain `cargo test`.
GUEST_TEST := cargo test --workspace --locked --test guest -- --nocapture
POWER_CUTS := nothing_promised_is_lost_and_nothing_convicted_is_loaded_whenever_the_power_is_cut

.PHONY: soak
soak: build ## 500 power cuts of the loader's node on ext4, and 500 on xfs
	@command -v mkfs.xfs >/dev/null || (apt-get update -q && apt-get install -y -q xfsprogs)
	INVIVO_POWER_CUTS=500 INVIVO_FILE_SYSTEM=ext4 $(GUEST_TEST) --exact $(POWER_CUTS)
	INVIVO_POWER_CUTS=500 INVIVO_FILE_SYSTEM=xfs $(GUEST_TEST) --exact $(POWER_CUTS)

.PHONY: explore
explore: host-packages own-target ## Two operators on small fleets: up to a million states of each scenario
	INVIVO_STATES=1000000 cargo test -p invivo-rollout --lib --locked in_every_order_of_events -- --nocapture

.PHONY: seeded-bugs
seeded-bugs: host-packages ## Break the planner on purpose, rule by rule; its tests must notice each time
	@command -v patch >/dev/null || (apt-get update -q && apt-get install -y -q patch)
	crates/rollout/bugs/run.sh

MUTANTS := $(INVIVO_CACHE)/cargo-mutants-27.1.0

.PHONY: mutants
mutants: host-packages ## Two hundred small changes of the planner, drawn by SEED; its tests must notice 95 of 100
	@[ -x $(MUTANTS)/bin/cargo-mutants ] \
	  || env -u CARGO_TARGET_DIR cargo install --quiet --locked --root $(MUTANTS) cargo-mutants --version 27.1.0
	PATH="$(MUTANTS)/bin:$$PATH" crates/rollout/mutants/run.sh

.PHONY: lint
lint: own-target ## Formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: generate
generate: build ## CRDs, rendered manifests and the command line's reference, from their sources
	$(BIN)/invivo-api
	cargo build --workspace --locked --example reference && $(BIN)/examples/reference > $(CARGO_TARGET_DIR)/cli.md
	mkdir -p docs/reference && mv $(CARGO_TARGET_DIR)/cli.md docs/reference/cli.md
	set -o pipefail; tools=$$($(LAB) tools | tee >(cat >&2) | tail -n 1) && PATH="$$tools:$$PATH" manifests/render.sh

.PHONY: images
images: host-packages own-target ## The four images, built for release, into REGISTRY (such as registry.example.com/invivo)
	@[ -n "$(REGISTRY)" ] || { echo "say where to: make images REGISTRY=registry.example.com/invivo"; exit 1; }
	cargo build --release --workspace --bins --locked
	$(RELEASE)/invivo-lab image ship "$(REGISTRY)"

.PHONY: bench
bench: host-packages own-target ## The figures of docs/benchmarks.md, on a new lab and on simulated fleets, with programs built for release
	cargo build --release --workspace --bins --examples --locked
	$(RELEASE)/invivo-lab bench
	$(RELEASE)/invivo-lab fleet

# What the sample is drawn with; another word draws another sample.
SUPPLY_SEED ?= invivo-2026-11-28
# A folder with records of flaws, as docs/supply.md says; titles alone if none.
SUPPLY_RECORDS ?=
# A folder with commits as patch files, as docs/supply.md says; none if none.
SUPPLY_COMMITS ?=
SUPPLY := $(BIN)/invivo supply $(addprefix --records ,$(SUPPLY_RECORDS)) $(addprefix --commits ,$(SUPPLY_COMMITS)) --out $(INVIVO_CACHE)/supply/$(SUPPLY_SEED)

.PHONY: bench-supply
bench-supply: host-packages own-target ## How many of the distribution's fixes become patches: samples, and the negative set
	@command -v dpkg-source >/dev/null || (apt-get update -q && apt-get install -y -q dpkg-dev)
	cargo build --workspace --bin invivo --locked
	$(SUPPLY)-6.1 --kernel 6.1.0-47-cloud-amd64 --sample 70 --seed $(SUPPLY_SEED) \
	  --to 6.1.187-1 --through 6.1.172-1,6.1.174-1,6.1.176-1,6.1.177-1,6.1.180-1
	$(SUPPLY)-6.12 --kernel 6.12.107+deb12-cloud-amd64 --sample 30 --seed $(SUPPLY_SEED) \
	  --to 6.12.117-1~deb12u1 --through 6.12.111-1~deb12u1,6.12.113-1~deb12u1,6.12.115-2~deb12u1
	$(SUPPLY)-5.10 --kernel 5.10.0-43-cloud-amd64 --sample 40 --seed $(SUPPLY_SEED) \
	  --to 5.10.262-1 --through 5.10.257-1,5.10.259-1
	cargo test --locked -p invivo-patch-builder --lib nothing_of_the_negative_set -- --nocapture
	cargo test --locked -p invivo-patch-builder --test refused -- --ignored --nocapture
	$(if $(SUPPLY_RECORDS),INVIVO_RECORDS=$(abspath $(SUPPLY_RECORDS)) \
	  cargo test --locked -p invivo-patch-builder --test placement -- --ignored --nocapture)
